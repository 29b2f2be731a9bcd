/* The bodies of hash.h, for loops that need them inlined. */
#ifndef DIN_HASH_INLINE_H
#define DIN_HASH_INLINE_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "hash.h"

#define DIN_PRIME_1 0x9E3779B185EBCA87u
#define DIN_PRIME_2 0xC2B2AE3D27D4EB4Fu
#define DIN_PRIME_3 0x165667B19E3779F9u
#define DIN_PRIME_4 0x85EBCA77C2B2AE63u
#define DIN_PRIME_5 0x27D4EB2F165667C5u

static inline uint64_t din_read_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap64(v);
#endif
  return v;
}

static inline uint64_t din_read_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap32(v);
#endif
  return v;
}

static inline uint64_t din_rotate(uint64_t x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}

static inline uint64_t din_round(uint64_t acc, uint64_t lane) {
  return din_rotate(acc + lane * DIN_PRIME_2, 31) * DIN_PRIME_1;
}

static inline uint64_t din_mix8(uint64_t h, uint64_t lane) {
  return din_rotate(h ^ din_round(0, lane), 27) * DIN_PRIME_1 + DIN_PRIME_4;
}

static inline uint64_t din_mix1(uint64_t h, uint8_t byte) {
  return din_rotate(h ^ (byte * DIN_PRIME_5), 11) * DIN_PRIME_1;
}

static inline uint64_t din_avalanche(uint64_t h) {
  h = (h ^ (h >> 33)) * DIN_PRIME_2;
  h = (h ^ (h >> 29)) * DIN_PRIME_3;
  return h ^ (h >> 32);
}

static inline uint64_t din_merge(uint64_t h, uint64_t acc) {
  return (h ^ din_round(0, acc)) * DIN_PRIME_1 + DIN_PRIME_4;
}

static inline uint64_t din_hash_bytes_inline(const uint8_t *p, int64_t num_bytes,
                                             uint64_t seed) {
  assert(num_bytes >= 0);
  uint64_t n = (uint64_t)num_bytes;
  uint64_t h = seed + DIN_PRIME_5;
  if (n >= 32) {
    uint64_t a = seed + DIN_PRIME_1 + DIN_PRIME_2;
    uint64_t b = seed + DIN_PRIME_2;
    uint64_t c = seed;
    uint64_t d = seed - DIN_PRIME_1;
    for (uint64_t left = n / 32; left > 0; --left, p += 32) {
      a = din_round(a, din_read_u64(p));
      b = din_round(b, din_read_u64(p + 8));
      c = din_round(c, din_read_u64(p + 16));
      d = din_round(d, din_read_u64(p + 24));
    }
    h = din_rotate(a, 1) + din_rotate(b, 7) + din_rotate(c, 12) + din_rotate(d, 18);
    h = din_merge(din_merge(din_merge(din_merge(h, a), b), c), d);
  }
  h += n;
  n &= 31;
  for (; n >= 8; n -= 8, p += 8) {
    h = din_mix8(h, din_read_u64(p));
  }
  if (n >= 4) {
    h = din_rotate(h ^ (din_read_u32(p) * DIN_PRIME_1), 23) * DIN_PRIME_2 + DIN_PRIME_3;
    p += 4;
    n -= 4;
  }
  if (n >= 1) {
    h = din_mix1(h, p[0]);
  }
  if (n >= 2) {
    h = din_mix1(h, p[1]);
  }
  if (n >= 3) {
    h = din_mix1(h, p[2]);
  }
  return din_avalanche(h);
}

static inline uint64_t din_hash_int64_inline(int64_t key, uint64_t seed) {
  return din_avalanche(din_mix8(seed + DIN_PRIME_5 + 8, (uint64_t)key));
}

/* Write the decimal text at the end of `text`; return where it begins. */
static inline int din_format_int64(int64_t key, uint8_t text[DIN_MAX_DIGITS]) {
  uint64_t left = key < 0 ? 0 - (uint64_t)key : (uint64_t)key;
  int at = DIN_MAX_DIGITS;
  do {
    text[--at] = (uint8_t)('0' + left % 10);
    left /= 10;
  } while (left > 0);
  if (key < 0) {
    text[--at] = '-';
  }
  return at;
}

static inline uint64_t din_hash_int64_text_inline(int64_t key, uint64_t seed) {
  uint8_t text[DIN_MAX_DIGITS];
  const int at = din_format_int64(key, text);
  return din_hash_bytes_inline(text + at, DIN_MAX_DIGITS - at, seed);
}

static inline uint64_t din_modulo(uint64_t h, const din_reduction *r) {
#if defined(__SIZEOF_INT128__)
  __extension__ typedef unsigned __int128 din_u128;
  const din_u128 multiplier = ((din_u128)r->multiplier_high << 64) | r->multiplier_low;
  const din_u128 fraction = multiplier * h;
  const din_u128 low = ((din_u128)(uint64_t)fraction * r->divisor) >> 64;
  return (uint64_t)((low + (din_u128)(uint64_t)(fraction >> 64) * r->divisor) >> 64);
#else
  return h % r->divisor;
#endif
}

static inline int64_t din_reduce_inline(uint64_t h, const din_reduction *r) {
  switch (r->kind) {
    case DIN_REDUCE_OFFSET:
      return 1 + (int64_t)din_modulo(h, r);
    case DIN_REDUCE_MOD:
      return (int64_t)din_modulo(h, r);
    case DIN_REDUCE_PMOD: {
      const uint64_t m = din_modulo(h, r);
      if ((h >> 63) == 0) {
        return (int64_t)m;
      }
      return (int64_t)(m >= r->wrap ? m - r->wrap : m + (r->divisor - r->wrap));
    }
    case DIN_REDUCE_ABS: {
      const uint64_t low = h & 0xFFFFFFFFu;
      return (int64_t)din_modulo(low >> 31 ? 0x100000000u - low : low, r);
    }
    default: {
      int64_t raw;
      memcpy(&raw, &h, sizeof raw);
      return raw;
    }
  }
}

#endif /* DIN_HASH_INLINE_H */
