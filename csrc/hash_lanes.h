/*
 * Lanes: 1 or 8 unsigned 64-bit integers, and the operations that hashes are made of.
 *
 * Include with DIN_LANES_AVX2 or DIN_LANES_AVX512 defined for 8; always gives the one.
 * Suffix _1 or _8. A `k` is the same for all lanes, an `x32` below 2^32 in each.
 */
#ifndef DIN_HASH_LANES_H
#define DIN_HASH_LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define DIN_INLINE static inline __attribute__((always_inline, unused))
#else
#define DIN_INLINE static inline
#endif
#define DIN_LOW32 0xFFFFFFFFu

DIN_INLINE uint64_t din_read_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap64(v);
#endif
  return v;
}

DIN_INLINE uint64_t din_read_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap32(v);
#endif
  return v;
}

/* Read 1 to 7 bytes as a number, from within them alone. */
DIN_INLINE uint64_t din_read_few(const uint8_t *p, int64_t n) {
  if (n >= 4) {
    return din_read_u32(p) | din_read_u32(p + n - 4) << (8 * (n - 4));
  }
  return (uint64_t)p[0] | (uint64_t)p[n >> 1] << (8 * (n >> 1)) |
         (uint64_t)p[n - 1] << (8 * (n - 1));
}

/* --------------------------------------------------------------------------- one lane
 */

typedef uint64_t din_lanes_1;

DIN_INLINE uint64_t din_same_1(uint64_t k) { return k; }
DIN_INLINE uint64_t din_add_1(uint64_t x, uint64_t y) { return x + y; }
DIN_INLINE uint64_t din_xor_1(uint64_t x, uint64_t y) { return x ^ y; }
DIN_INLINE uint64_t din_and_1(uint64_t x, uint64_t k) { return x & k; }
DIN_INLINE uint64_t din_left_1(uint64_t x, int bits) { return x << bits; }
DIN_INLINE uint64_t din_right_1(uint64_t x, int bits) { return x >> bits; }
DIN_INLINE uint64_t din_turn_1(uint64_t x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}
DIN_INLINE uint64_t din_mul_1(uint64_t x, uint64_t k) { return x * k; }
DIN_INLINE uint64_t din_mul32_1(uint64_t x32, uint64_t k) { return x32 * k; }
DIN_INLINE uint64_t din_mul32x32_1(uint64_t x32, uint64_t k32) { return x32 * k32; }

/* The high half of the 128-bit product. */
DIN_INLINE uint64_t din_mul_high_1(uint64_t x, uint64_t y) {
#if defined(__SIZEOF_INT128__)
  __extension__ typedef unsigned __int128 din_u128;
  return (uint64_t)(((din_u128)x * y) >> 64);
#else
  const uint64_t low = (x & DIN_LOW32) * (y & DIN_LOW32);
  const uint64_t first = (x >> 32) * (y & DIN_LOW32) + (low >> 32);
  const uint64_t second = (x & DIN_LOW32) * (y >> 32) + (first & DIN_LOW32);
  return (x >> 32) * (y >> 32) + (first >> 32) + (second >> 32);
#endif
}

/* Both halves of the 128-bit product, xored. */
DIN_INLINE uint64_t din_fold_1(uint64_t x, uint64_t y) {
  return (x * y) ^ din_mul_high_1(x, y);
}

DIN_INLINE uint64_t din_swap_bytes_1(uint64_t x) {
  x = (x >> 32) | (x << 32);
  x = ((x >> 16) & 0x0000FFFF0000FFFFu) | ((x & 0x0000FFFF0000FFFFu) << 16);
  return ((x >> 8) & 0x00FF00FF00FF00FFu) | ((x & 0x00FF00FF00FF00FFu) << 8);
}

DIN_INLINE uint64_t din_load64_1(const uint8_t *const *p, int64_t at) {
  return din_read_u64(p[0] + at);
}
DIN_INLINE uint64_t din_load32_1(const uint8_t *const *p, int64_t at) {
  return din_read_u32(p[0] + at);
}
DIN_INLINE uint64_t din_load8_1(const uint8_t *const *p, int64_t at) {
  return p[0][at];
}
DIN_INLINE uint64_t din_load_few_1(const uint8_t *const *p, int64_t n) {
  return din_read_few(p[0], n);
}
DIN_INLINE uint64_t din_get_1(const void *from) {
  uint64_t x;
  memcpy(&x, from, sizeof x);
  return x;
}
DIN_INLINE void din_put_1(void *to, uint64_t x) { memcpy(to, &x, sizeof x); }

/* ----------------------------------------------------------- eight lanes, two vectors
 */
#if defined(DIN_LANES_AVX2)
#include <immintrin.h>

/* Two vectors in step: what one waits for, the other one fills. */
typedef struct {
  __m256i a;
  __m256i b;
} din_lanes_8;

#define DIN_BOTH(expression_a, expression_b) \
  ((din_lanes_8){(expression_a), (expression_b)})

DIN_INLINE __m256i din_all(uint64_t k) { return _mm256_set1_epi64x((int64_t)k); }
DIN_INLINE din_lanes_8 din_same_8(uint64_t k) {
  return DIN_BOTH(din_all(k), din_all(k));
}
DIN_INLINE din_lanes_8 din_add_8(din_lanes_8 x, din_lanes_8 y) {
  return DIN_BOTH(_mm256_add_epi64(x.a, y.a), _mm256_add_epi64(x.b, y.b));
}
DIN_INLINE din_lanes_8 din_sub_8(din_lanes_8 x, din_lanes_8 y) {
  return DIN_BOTH(_mm256_sub_epi64(x.a, y.a), _mm256_sub_epi64(x.b, y.b));
}
DIN_INLINE din_lanes_8 din_xor_8(din_lanes_8 x, din_lanes_8 y) {
  return DIN_BOTH(_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b));
}
DIN_INLINE din_lanes_8 din_and_8(din_lanes_8 x, uint64_t k) {
  return DIN_BOTH(_mm256_and_si256(x.a, din_all(k)), _mm256_and_si256(x.b, din_all(k)));
}
DIN_INLINE din_lanes_8 din_left_8(din_lanes_8 x, int bits) {
  return DIN_BOTH(_mm256_slli_epi64(x.a, bits), _mm256_slli_epi64(x.b, bits));
}
DIN_INLINE din_lanes_8 din_right_8(din_lanes_8 x, int bits) {
  return DIN_BOTH(_mm256_srli_epi64(x.a, bits), _mm256_srli_epi64(x.b, bits));
}
DIN_INLINE din_lanes_8 din_turn_8(din_lanes_8 x, int bits) {
  const din_lanes_8 y = din_left_8(x, bits);
  x = din_right_8(x, 64 - bits);
  return DIN_BOTH(_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b));
}
/* Low halves multiplied in full. */
DIN_INLINE din_lanes_8 din_mul32x32_8(din_lanes_8 x32, uint64_t k32) {
  return DIN_BOTH(_mm256_mul_epu32(x32.a, din_all(k32)),
                  _mm256_mul_epu32(x32.b, din_all(k32)));
}
DIN_INLINE din_lanes_8 din_mul32_8(din_lanes_8 x32, uint64_t k) {
  return din_add_8(din_mul32x32_8(x32, k & DIN_LOW32),
                   din_left_8(din_mul32x32_8(x32, k >> 32), 32));
}
DIN_INLINE din_lanes_8 din_mul_8(din_lanes_8 x, uint64_t k) {
  const din_lanes_8 cross = din_add_8(din_mul32x32_8(din_right_8(x, 32), k & DIN_LOW32),
                                      din_mul32x32_8(x, k >> 32));
  return din_add_8(din_mul32x32_8(x, k & DIN_LOW32), din_left_8(cross, 32));
}
DIN_INLINE din_lanes_8 din_mul_low_8(din_lanes_8 x, din_lanes_8 y) {
  return DIN_BOTH(_mm256_mul_epu32(x.a, y.a), _mm256_mul_epu32(x.b, y.b));
}
DIN_INLINE din_lanes_8 din_min_8(din_lanes_8 x32, din_lanes_8 y32) {
  return DIN_BOTH(_mm256_min_epu32(x32.a, y32.a), _mm256_min_epu32(x32.b, y32.b));
}
/* All bits of lane i where at + i < count, none elsewhere. */
DIN_INLINE din_lanes_8 din_before_8(int64_t at, int64_t count) {
  const __m256i left = _mm256_set1_epi64x(count - at);
  return DIN_BOTH(_mm256_cmpgt_epi64(left, _mm256_set_epi64x(3, 2, 1, 0)),
                  _mm256_cmpgt_epi64(left, _mm256_set_epi64x(7, 6, 5, 4)));
}
DIN_INLINE din_lanes_8 din_mask_8(din_lanes_8 x, din_lanes_8 mask) {
  return DIN_BOTH(_mm256_and_si256(x.a, mask.a), _mm256_and_si256(x.b, mask.b));
}
#define DIN_GATHER(read)                                                           \
  DIN_BOTH(_mm256_set_epi64x((int64_t)read(3), (int64_t)read(2), (int64_t)read(1), \
                             (int64_t)read(0)),                                    \
           _mm256_set_epi64x((int64_t)read(7), (int64_t)read(6), (int64_t)read(5), \
                             (int64_t)read(4)))
DIN_INLINE din_lanes_8 din_get_8(const void *from) {
  return DIN_BOTH(_mm256_loadu_si256((const __m256i *)from),
                  _mm256_loadu_si256((const __m256i *)from + 1));
}
DIN_INLINE void din_put_8(void *to, din_lanes_8 x) {
  _mm256_storeu_si256((__m256i *)to, x.a);
  _mm256_storeu_si256((__m256i *)to + 1, x.b);
}

/* ------------------------------------------------------------ eight lanes, one vector
 */
#elif defined(DIN_LANES_AVX512)

typedef uint64_t din_lanes_8 __attribute__((vector_size(64)));

DIN_INLINE din_lanes_8 din_same_8(uint64_t k) { return k - (din_lanes_8){0}; }
DIN_INLINE din_lanes_8 din_add_8(din_lanes_8 x, din_lanes_8 y) { return x + y; }
DIN_INLINE din_lanes_8 din_sub_8(din_lanes_8 x, din_lanes_8 y) { return x - y; }
DIN_INLINE din_lanes_8 din_xor_8(din_lanes_8 x, din_lanes_8 y) { return x ^ y; }
DIN_INLINE din_lanes_8 din_and_8(din_lanes_8 x, uint64_t k) { return x & k; }
DIN_INLINE din_lanes_8 din_left_8(din_lanes_8 x, int bits) { return x << bits; }
DIN_INLINE din_lanes_8 din_right_8(din_lanes_8 x, int bits) { return x >> bits; }
DIN_INLINE din_lanes_8 din_turn_8(din_lanes_8 x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}
DIN_INLINE din_lanes_8 din_mul_8(din_lanes_8 x, uint64_t k) { return x * k; }
DIN_INLINE din_lanes_8 din_mul32_8(din_lanes_8 x32, uint64_t k) { return x32 * k; }
#if defined(__AVX512F__)
#include <immintrin.h>
DIN_INLINE din_lanes_8 din_mul_low_8(din_lanes_8 x, din_lanes_8 y) {
  return (din_lanes_8)_mm512_mul_epu32((__m512i)x, (__m512i)y);
}
DIN_INLINE din_lanes_8 din_min_8(din_lanes_8 x, din_lanes_8 y) {
  return (din_lanes_8)_mm512_min_epu32((__m512i)x, (__m512i)y);
}
#else /* the same in plain C, to be tested anywhere */
DIN_INLINE din_lanes_8 din_mul_low_8(din_lanes_8 x, din_lanes_8 y) {
  return (x & DIN_LOW32) * (y & DIN_LOW32);
}
DIN_INLINE din_lanes_8 din_min_8(din_lanes_8 x, din_lanes_8 y) {
  typedef uint32_t halves __attribute__((vector_size(64)));
  const halves a = (halves)x;
  const halves b = (halves)y;
  const halves is_less = (halves)(a < b);
  return (din_lanes_8)((a & is_less) | (b & ~is_less));
}
#endif
DIN_INLINE din_lanes_8 din_before_8(int64_t at, int64_t count) {
  typedef int64_t signed_lanes __attribute__((vector_size(64)));
  const signed_lanes numbers = {0, 1, 2, 3, 4, 5, 6, 7};
  return (din_lanes_8)(numbers < count - at);
}
DIN_INLINE din_lanes_8 din_mask_8(din_lanes_8 x, din_lanes_8 mask) { return x & mask; }
DIN_INLINE din_lanes_8 din_mul32x32_8(din_lanes_8 x32, uint64_t k32) {
  return din_mul_low_8(x32, din_same_8(k32));
}
#define DIN_GATHER(read)                                                        \
  ((din_lanes_8){read(0), read(1), read(2), read(3), read(4), read(5), read(6), \
                 read(7)})
DIN_INLINE din_lanes_8 din_get_8(const void *from) {
  din_lanes_8 x;
  memcpy(&x, from, sizeof x);
  return x;
}
DIN_INLINE void din_put_8(void *to, din_lanes_8 x) { memcpy(to, &x, sizeof x); }
#endif

/* -------------------------------------------------------- eight lanes, either of them
 */
#if defined(DIN_GATHER)
DIN_INLINE din_lanes_8 din_fold_8(din_lanes_8 x, din_lanes_8 y) {
  const din_lanes_8 x_high = din_right_8(x, 32);
  const din_lanes_8 y_high = din_right_8(y, 32);
  const din_lanes_8 low = din_mul_low_8(x, y);
  const din_lanes_8 cross = din_mul_low_8(x, y_high);
  const din_lanes_8 middle =
      din_add_8(din_mul_low_8(x_high, y),
                din_add_8(din_right_8(low, 32), din_and_8(cross, DIN_LOW32)));
  const din_lanes_8 high =
      din_add_8(din_mul_low_8(x_high, y_high),
                din_add_8(din_right_8(cross, 32), din_right_8(middle, 32)));
  return din_xor_8(high, din_xor_8(din_left_8(middle, 32), din_and_8(low, DIN_LOW32)));
}
DIN_INLINE din_lanes_8 din_swap_bytes_8(din_lanes_8 x) {
  x = din_turn_8(x, 32);
  x = din_xor_8(din_and_8(din_right_8(x, 16), 0x0000FFFF0000FFFFu),
                din_left_8(din_and_8(x, 0x0000FFFF0000FFFFu), 16));
  return din_xor_8(din_and_8(din_right_8(x, 8), 0x00FF00FF00FF00FFu),
                   din_left_8(din_and_8(x, 0x00FF00FF00FF00FFu), 8));
}
DIN_INLINE din_lanes_8 din_load64_8(const uint8_t *const *p, int64_t at) {
#define DIN_READ(i) din_read_u64(p[i] + at)
  return DIN_GATHER(DIN_READ);
#undef DIN_READ
}
DIN_INLINE din_lanes_8 din_load32_8(const uint8_t *const *p, int64_t at) {
#define DIN_READ(i) din_read_u32(p[i] + at)
  return DIN_GATHER(DIN_READ);
#undef DIN_READ
}
DIN_INLINE din_lanes_8 din_load8_8(const uint8_t *const *p, int64_t at) {
#define DIN_READ(i) p[i][at]
  return DIN_GATHER(DIN_READ);
#undef DIN_READ
}
DIN_INLINE din_lanes_8 din_load_few_8(const uint8_t *const *p, int64_t n) {
#define DIN_READ(i) din_read_few(p[i], n)
  return DIN_GATHER(DIN_READ);
#undef DIN_READ
}
#endif

#endif /* DIN_HASH_LANES_H */
