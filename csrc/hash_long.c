/* Keys longer than 32 bytes: mixed in stripes, one key at a time. */
#include <assert.h>
#include <string.h>

#include "hash.h"
#include "hash_constants.h"
#include "hash_lanes.h"

#define LANES 1
#include "hash_short.h"

/* ----------------------------------------------------------------------------- XXH64 */

DIN_INLINE uint64_t xxh64_round(uint64_t acc, uint64_t word) {
  return din_turn_1(acc + word * DIN_PRIME_2, 31) * DIN_PRIME_1;
}

DIN_INLINE uint64_t xxh64_merge(uint64_t h, uint64_t acc) {
  return (h ^ xxh64_round(0, acc)) * DIN_PRIME_1 + DIN_PRIME_4;
}

uint64_t din_hash_long_xxh64(const uint8_t *p, int64_t num_bytes, uint64_t seed) {
  assert(num_bytes >= 32);
  uint64_t a = seed + DIN_PRIME_1 + DIN_PRIME_2;
  uint64_t b = seed + DIN_PRIME_2;
  uint64_t c = seed;
  uint64_t d = seed - DIN_PRIME_1;
  for (int64_t left = num_bytes / 32; left > 0; --left, p += 32) {
    a = xxh64_round(a, din_read_u64(p));
    b = xxh64_round(b, din_read_u64(p + 8));
    c = xxh64_round(c, din_read_u64(p + 16));
    d = xxh64_round(d, din_read_u64(p + 24));
  }
  uint64_t h =
      din_turn_1(a, 1) + din_turn_1(b, 7) + din_turn_1(c, 12) + din_turn_1(d, 18);
  h = xxh64_merge(xxh64_merge(xxh64_merge(xxh64_merge(h, a), b), c), d);
  h += (uint64_t)num_bytes;
  int64_t n = num_bytes & 31;
  for (; n >= 8; n -= 8, p += 8) h = din_xxh64_mix8_1(h, din_read_u64(p));
  if (n >= 4) {
    h = din_xxh64_mix4_1(h, din_read_u32(p));
    n -= 4;
    p += 4;
  }
  for (int64_t i = 0; i < n; ++i) h = din_xxh64_mix1_1(h, p[i]);
  return din_xxh64_avalanche_1(h);
}

/* ------------------------------------------------------------------------------ XXH3 */

enum {
  STRIPE = 64,
  STRIPES_PER_BLOCK = (DIN_XXH3_SECRET_BYTES - STRIPE) / 8,
  MIDDLE = 240, /* longest key that is not mixed in stripes */
  LAST_STRIPE_SECRET = DIN_XXH3_SECRET_BYTES - STRIPE - 7,
  MERGE_SECRET = 11,
  MIDDLE_SECRET = 3,     /* of the second half of a middle key */
  MIDDLE_LAST = 136 - 17 /* and of its last 16 bytes */
};

static uint64_t xxh3_middle(const uint8_t *p, int64_t n, uint64_t seed) {
  const din_places key = din_places_every(p, n);
  uint64_t h = (uint64_t)n * DIN_PRIME_1;
  if (n <= 128) {
    /* pairs of 16 bytes, from the middle outwards; sums do not mind the order */
    for (int i = 0; i <= (int)(n - 1) / 32; ++i) {
      h += din_xxh3_mix16_1(key, 16 * i, 32 * i, seed);
      h += din_xxh3_mix16_1(key, n - 16 * (i + 1), 32 * i + 16, seed);
    }
    return din_xxh3_avalanche_1(h);
  }
  for (int i = 0; i < 8; ++i) h += din_xxh3_mix16_1(key, 16 * i, 16 * i, seed);
  h = din_xxh3_avalanche_1(h);
  for (int i = 8; i < (int)n / 16; ++i) {
    h += din_xxh3_mix16_1(key, 16 * i, 16 * (i - 8) + MIDDLE_SECRET, seed);
  }
  h += din_xxh3_mix16_1(key, n - 16, MIDDLE_LAST, seed);
  return din_xxh3_avalanche_1(h);
}

static void xxh3_accumulate(uint64_t acc[8], const uint8_t *p, const uint8_t *secret) {
  for (int i = 0; i < 8; ++i) {
    const uint64_t word = din_read_u64(p + 8 * i);
    const uint64_t key = word ^ din_read_u64(secret + 8 * i);
    acc[i ^ 1] += word;
    acc[i] += (key & DIN_LOW32) * (key >> 32);
  }
}

uint64_t din_hash_long_xxh3(const uint8_t *p, int64_t num_bytes, uint64_t seed) {
  assert(num_bytes > 16);
  if (num_bytes <= MIDDLE) return xxh3_middle(p, num_bytes, seed);
  uint8_t secret[DIN_XXH3_SECRET_BYTES];
  for (int i = 0; i < DIN_XXH3_SECRET_BYTES; i += 8) {
    const uint64_t word =
        din_xxh3_secret(i) + (i % 16 == 0 ? seed : (uint64_t)0 - seed);
    for (int k = 0; k < 8; ++k) secret[i + k] = (uint8_t)(word >> (8 * k));
  }
  uint64_t acc[8] = {DIN_PRIME32_3, DIN_PRIME_1,   DIN_PRIME_2, DIN_PRIME_3,
                     DIN_PRIME_4,   DIN_PRIME32_2, DIN_PRIME_5, DIN_PRIME32_1};
  const int64_t num_stripes = (num_bytes - 1) / STRIPE;
  for (int64_t i = 0; i < num_stripes; ++i) {
    const int64_t at = i % STRIPES_PER_BLOCK;
    xxh3_accumulate(acc, p + i * STRIPE, secret + 8 * at);
    if (at == STRIPES_PER_BLOCK - 1) {
      const uint8_t *scramble = secret + DIN_XXH3_SECRET_BYTES - STRIPE;
      for (int k = 0; k < 8; ++k) {
        acc[k] ^= acc[k] >> 47;
        acc[k] = (acc[k] ^ din_read_u64(scramble + 8 * k)) * DIN_PRIME32_1;
      }
    }
  }
  xxh3_accumulate(acc, p + num_bytes - STRIPE, secret + LAST_STRIPE_SECRET);
  uint64_t h = (uint64_t)num_bytes * DIN_PRIME_1;
  for (int i = 0; i < 4; ++i) {
    const uint8_t *words = secret + MERGE_SECRET + 16 * i;
    h += din_fold_1(acc[2 * i] ^ din_read_u64(words),
                    acc[2 * i + 1] ^ din_read_u64(words + 8));
  }
  return din_xxh3_avalanche_1(h);
}

/* ----------------------------------------------------------------------- MurmurHash3 */

uint64_t din_hash_long_murmur3(const uint8_t *p, int64_t num_bytes, uint64_t seed) {
  uint64_t h = seed;
  int64_t n = num_bytes;
  for (; n >= 4; n -= 4, p += 4) h = din_murmur3_mix4_1(h, din_read_u32(p));
  if (n > 0) h ^= din_murmur3_scramble_1(din_read_few(p, n));
  /* the length is counted in 32 bits */
  return din_murmur3_finish_1(h, num_bytes & (int64_t)DIN_LOW32);
}

/* -------------------------------------------------------------------------- FarmHash */

typedef struct {
  uint64_t first;
  uint64_t second;
} pair;

static uint64_t farmhash_33to64(const uint8_t *p, int64_t n) {
  const uint64_t k = DIN_FARMHASH_2 + 2 * (uint64_t)n;
  const uint64_t a = din_read_u64(p) * DIN_FARMHASH_2;
  const uint64_t b = din_read_u64(p + 8);
  const uint64_t c = din_read_u64(p + n - 8) * k;
  const uint64_t d = din_read_u64(p + n - 16) * DIN_FARMHASH_2;
  const uint64_t y = din_turn_1(a + b, 21) + din_turn_1(c, 34) + d;
  const uint64_t turned = din_turn_1(b + DIN_FARMHASH_2, 46);
  const uint64_t z = din_farmhash_16_1(y, a + turned + c, k);
  const uint64_t e = din_read_u64(p + 16) * k;
  const uint64_t f = din_read_u64(p + 24);
  const uint64_t g = (y + din_read_u64(p + n - 32)) * k;
  const uint64_t h = (z + din_read_u64(p + n - 24)) * k;
  return din_farmhash_16_1(din_turn_1(e + f, 21) + din_turn_1(g, 34) + h,
                           e + din_turn_1(f + a, 46) + g, k);
}

static pair farmhash_weak32(const uint8_t *p, uint64_t a, uint64_t b) {
  const uint64_t last = din_read_u64(p + 24);
  a += din_read_u64(p);
  b = din_turn_1(b + a + last, 43);
  const uint64_t c = a;
  a += din_read_u64(p + 8) + din_read_u64(p + 16);
  b += din_turn_1(a, 20);
  return (pair){a + last, b + c};
}

typedef struct {
  uint64_t x, y, z;
  pair v, w;
} farmhash_state;

/* One stripe of 64 bytes; `nine` is 9 in the last one, else 1. */
static farmhash_state farmhash_stripe(farmhash_state s, const uint8_t *p, uint64_t k,
                                      uint64_t nine) {
  s.x = din_turn_1(s.x + s.y + s.v.first + din_read_u64(p + 8), 27) * k;
  s.y = din_turn_1(s.y + s.v.second + din_read_u64(p + 48), 22) * k;
  s.x ^= s.w.second * nine;
  s.y += s.v.first * nine + din_read_u64(p + 40);
  s.z = din_turn_1(s.z + s.w.first, 31) * k;
  s.v = farmhash_weak32(p, s.v.second * k, s.x + s.w.first);
  s.w = farmhash_weak32(p + 32, s.z + s.w.second, s.y + din_read_u64(p + 16));
  const uint64_t z = s.z;
  s.z = s.x;
  s.x = z;
  return s;
}

uint64_t din_hash_long_farmhash(const uint8_t *p, int64_t num_bytes, uint64_t seed) {
  assert(num_bytes > 32);
  (void)seed;
  if (num_bytes <= 64) return farmhash_33to64(p, num_bytes);
  const uint64_t start = 81;
  farmhash_state s = {start, start * DIN_FARMHASH_1 + 113, 0, {0, 0}, {0, 0}};
  s.z = din_farmhash_shift_1(s.y * DIN_FARMHASH_2 + 113) * DIN_FARMHASH_2;
  s.x = s.x * DIN_FARMHASH_2 + din_read_u64(p);
  const uint8_t *last = p + num_bytes - 64;
  for (int64_t left = (num_bytes - 1) / 64; left > 0; --left, p += 64) {
    s = farmhash_stripe(s, p, DIN_FARMHASH_1, 1);
  }
  const uint64_t k = DIN_FARMHASH_1 + ((s.z & 255) << 1);
  s.w.first += (uint64_t)(num_bytes - 1) & 63;
  s.v.first += s.w.first;
  s.w.first += s.v.first;
  s = farmhash_stripe(s, last, k, 9);
  const uint64_t first = din_farmhash_16_1(s.v.first, s.w.first, k);
  const uint64_t second = din_farmhash_16_1(s.v.second, s.w.second, k);
  return din_farmhash_16_1(first + din_farmhash_shift_1(s.y) * DIN_FARMHASH_0 + s.z,
                           second + s.x, k);
}
