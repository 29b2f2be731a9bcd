/*
 * Hashes of other systems, one key at a time.
 *
 *   SipHash-2-4       Aumasson, Bernstein 2012: 131002.net/siphash/siphash.pdf
 *   MurmurHash3       x86, 32 bits, as two systems have it:
 *     Spark's         each byte behind the last multiple of 4 is a word of its own, signed
 *                     (Murmur3_x86_32.hashUnsafeBytes)
 *     Vowpal Wabbit's blanks around a key are left out, and a key of digits alone is their
 *                     number, plus the seed (hashstring)
 */
#include "hash.h"
#include "hash_constants.h"

static uint64_t turn64(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static uint32_t turn32(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }

/* -------------------------------------------------------------------------- SipHash */

typedef struct {
  uint64_t a, b, c, d;
} sip;

static void sip_rounds(sip *s, int count) {
  for (; count > 0; --count) {
    s->a += s->b;
    s->b = turn64(s->b, 13) ^ s->a;
    s->a = turn64(s->a, 32);
    s->c += s->d;
    s->d = turn64(s->d, 16) ^ s->c;
    s->a += s->d;
    s->d = turn64(s->d, 21) ^ s->a;
    s->c += s->b;
    s->b = turn64(s->b, 17) ^ s->c;
    s->c = turn64(s->c, 32);
  }
}

static void sip_mix(sip *s, uint64_t word) {
  s->d ^= word;
  sip_rounds(s, 2);
  s->a ^= word;
}

static uint64_t siphash24(const uint8_t *p, int64_t n, uint64_t k0, uint64_t k1) {
  sip s = {k0 ^ 0x736F6D6570736575u, k1 ^ 0x646F72616E646F6Du, k0 ^ 0x6C7967656E657261u,
           k1 ^ 0x7465646279746573u};
  const int rest = (int)(n & 7);
  const uint64_t last = rest > 0 ? din_read_few(p + n - rest, rest) : 0;
  for (int64_t at = 0; at + 8 <= n; at += 8) sip_mix(&s, din_read_u64(p + at));
  sip_mix(&s, (uint64_t)n << 56 | last);
  s.c ^= 255;
  sip_rounds(&s, 4);
  return s.a ^ s.b ^ s.c ^ s.d;
}

/* ---------------------------------------------------------------------- MurmurHash3 */

static uint32_t scramble(uint32_t word) {
  return turn32(word * DIN_MURMUR3_1, 15) * DIN_MURMUR3_2;
}

static uint32_t mix(uint32_t h, uint32_t word) {
  return turn32(h ^ scramble(word), 13) * 5 + DIN_MURMUR3_3;
}

static uint32_t murmur3(const uint8_t *p, int64_t n, uint64_t seed, int is_sparks) {
  uint32_t h = (uint32_t)seed;
  int64_t at = 0;
  for (; at + 4 <= n; at += 4) h = mix(h, din_read_u32(p + at));
  if (!is_sparks && at < n) h ^= scramble((uint32_t)din_read_few(p + at, n - at));
  for (; is_sparks && at < n; ++at) {
    h = mix(h, p[at] < 128 ? p[at] : p[at] | 0xFFFFFF00u);
  }
  h ^= (uint32_t)n;
  h = (h ^ h >> 16) * DIN_MURMUR3_4;
  h = (h ^ h >> 13) * DIN_MURMUR3_5;
  return h ^ h >> 16;
}

static uint64_t vowpal_wabbit(const uint8_t *p, int64_t n, uint64_t seed) {
  uint64_t number = 0;
  for (; n > 0 && *p <= ' '; --n) ++p;
  while (n > 0 && p[n - 1] <= ' ') --n;
  for (int64_t i = 0; i < n; ++i) {
    if (p[i] < '0' || p[i] > '9') return murmur3(p, n, seed, 0);
    number = 10 * number + (uint64_t)(p[i] - '0');
  }
  return number + seed;
}

uint64_t din_hash_other(int32_t hash, const uint8_t *key, int64_t num_bytes,
                        uint64_t seed, uint64_t second_seed) {
  switch (hash) {
    case DIN_HASH_SIPHASH_24:
      return siphash24(key, num_bytes, seed, second_seed);
    case DIN_HASH_MURMUR3_32_SPARK:
      return murmur3(key, num_bytes, seed, 1);
    default:
      return vowpal_wabbit(key, num_bytes, seed);
  }
}
