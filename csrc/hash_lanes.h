/*
 * Lanes: 64-bit integers of one key each, 1 (suffix _1) or a vector of them (_v), and
 * what hashes need beside the operators of C, which work on both.
 *
 * Vectors are there where DIN_VECTOR_BYTES is defined: 32 (AVX2) or 64 (AVX-512). A mask
 * says yes or no for each lane.
 */
#ifndef DIN_HASH_LANES_H
#define DIN_HASH_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define DIN_INLINE static inline __attribute__((always_inline, unused))
#define DIN_NOINLINE static __attribute__((noinline))
#else
#define DIN_INLINE static inline
#define DIN_NOINLINE static
#endif
#if defined(__clang__)
#define DIN_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define DIN_UNROLL _Pragma("GCC unroll 4")
#else
#define DIN_UNROLL
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

DIN_INLINE uint32_t din_read_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  v = __builtin_bswap32(v);
#endif
  return v;
}

/* Read 0 to 8 bytes as a number, from within them alone. */
DIN_INLINE uint64_t din_read_few(const uint8_t *p, int64_t n) {
  if (n >= 8) return din_read_u64(p);
  if (n >= 4) {
    return din_read_u32(p) | (uint64_t)din_read_u32(p + n - 4) << (8 * (n - 4));
  }
  if (n <= 0) return 0;
  return (uint64_t)p[0] | (uint64_t)p[n >> 1] << (8 * (n >> 1)) |
         (uint64_t)p[n - 1] << (8 * (n - 1));
}

/* What is read in the place of what is not there. */
static const uint8_t din_zeros[32] = {0};

/* ------------------------------------------------------------------------ one lane */

typedef uint64_t din_lanes_1;
typedef uint32_t din_halves_1; /* 32-bit lanes */
typedef int din_mask_1;
enum { din_groups_1 = 1 };

DIN_INLINE uint64_t din_same_1(uint64_t k) { return k; }
DIN_INLINE uint64_t din_mul32_1(uint64_t x, uint64_t y) {
  return (x & DIN_LOW32) * (y & DIN_LOW32);
}
DIN_INLINE uint64_t din_turn_1(uint64_t x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}
/* Shifts of each lane by bits of its own, from 0 on; 64 and more leave nothing. */
DIN_INLINE uint64_t din_left_1(uint64_t x, uint64_t bits) {
  return bits < 64 ? x << bits : 0;
}
DIN_INLINE uint64_t din_right_1(uint64_t x, uint64_t bits) {
  return bits < 64 ? x >> bits : 0;
}
/* Which lanes are above k, both signed. */
DIN_INLINE int din_above_1(uint64_t x, int64_t k) { return (int64_t)x > k; }
DIN_INLINE int din_has_1(uint64_t x, uint64_t bit) { return (x & bit) != 0; }
DIN_INLINE int din_any_of_1(int mask) { return mask; }
DIN_INLINE int din_any_1(const int *mask) { return *mask; }
DIN_INLINE uint64_t din_choose_1(int mask, uint64_t yes, uint64_t no) {
  return mask ? yes : no;
}

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

/*
 * Read `size` bytes, 32 at most, as four words. Behind them stand zeros, or, where
 * there is `room`, so that 32 bytes may be read, anything.
 */
DIN_INLINE void din_words_1(uint64_t address, uint64_t size, int room, uint64_t w[4]) {
  const uint8_t *p = (const uint8_t *)(uintptr_t)address;
  for (int k = 0; k < 4; ++k) {
    w[k] = din_read_few(p + 8 * k, room ? 8 : (int64_t)size - 8 * k);
  }
}
/* Read 32 bytes as four words, which are zeros where the mask says no. */
DIN_INLINE void din_stripe_1(uint64_t address, int mask, int room, uint64_t w[4]) {
  din_words_1(address, mask ? 32 : 0, room && mask, w);
}
/* Read two words, which are zeros where the mask says no. */
DIN_INLINE void din_two_words_1(uint64_t address, int mask, uint64_t w[2]) {
  const uint8_t *p = mask ? (const uint8_t *)(uintptr_t)address : din_zeros;
  w[0] = din_read_u64(p);
  w[1] = din_read_u64(p + 8);
}

/* The bytes of a key of up to 16: a number of them from the first or to the last. */
typedef const uint8_t *din_short_1;
DIN_INLINE din_short_1 din_take_short_1(uint64_t address, uint64_t n, int room) {
  (void)n;
  (void)room;
  return (const uint8_t *)(uintptr_t)address;
}
DIN_INLINE uint64_t din_first8_1(din_short_1 s) { return din_read_u64(s); }
DIN_INLINE uint64_t din_last8_1(din_short_1 s, uint64_t n) {
  return din_read_u64(s + n - 8);
}
DIN_INLINE uint64_t din_first4_1(din_short_1 s) { return din_read_u32(s); }
DIN_INLINE uint64_t din_last4_1(din_short_1 s, uint64_t n) {
  return din_read_u32(s + n - 4);
}
/* The i-th byte of up to 3; 0 where i is n, or -1. */
DIN_INLINE uint64_t din_byte_1(din_short_1 s, uint64_t i, uint64_t n) {
  return i < n ? s[i] : 0;
}

/* The low or the high halves. */
DIN_INLINE uint32_t din_join_1(const uint64_t *x, int is_high) {
  return (uint32_t)(*x >> (is_high ? 32 : 0));
}
/* ------------------------------------------------------------------------- vectors */
#if defined(DIN_VECTOR_BYTES)

typedef uint64_t din_lanes_v __attribute__((vector_size(DIN_VECTOR_BYTES)));
typedef int64_t din_signed_v __attribute__((vector_size(DIN_VECTOR_BYTES)));
typedef uint32_t din_halves_v __attribute__((vector_size(DIN_VECTOR_BYTES)));
typedef int32_t din_signed_halves_v __attribute__((vector_size(DIN_VECTOR_BYTES)));
/* Vectors that are hashed side by side, since one of them is a chain of latencies.
   XXH64 of 7 to 13 bytes, ns a key: 4.1 with 2 vectors of AVX-512, 3.4 with 4. */
enum { DIN_LANES = DIN_VECTOR_BYTES / 8, din_groups_v = 4 };

DIN_INLINE din_lanes_v din_same_v(uint64_t k) { return k - (din_lanes_v){0}; }
DIN_INLINE din_lanes_v din_turn_v(din_lanes_v x, int bits) {
  return (x << bits) | (x >> (64 - bits));
}
DIN_INLINE din_lanes_v din_get(const void *from) {
  din_lanes_v x;
  memcpy(&x, from, sizeof x);
  return x;
}
DIN_INLINE void din_put(void *to, din_lanes_v x) { memcpy(to, &x, sizeof x); }

#if defined(DIN_EMULATE)
#include "emulate_lanes.h" /* of the tests: the same in plain C */
#elif DIN_VECTOR_BYTES == 64
#include <immintrin.h>

typedef __mmask8 din_mask_v;
typedef __mmask16 din_half_mask_v;

DIN_INLINE din_lanes_v din_mul32_v(din_lanes_v x, din_lanes_v y) {
  return (din_lanes_v)_mm512_mul_epu32((__m512i)x, (__m512i)y);
}
DIN_INLINE din_lanes_v din_min32(din_lanes_v x, din_lanes_v y) {
  return (din_lanes_v)_mm512_min_epu32((__m512i)x, (__m512i)y);
}
DIN_INLINE din_lanes_v din_left_v(din_lanes_v x, din_lanes_v bits) {
  return (din_lanes_v)_mm512_sllv_epi64((__m512i)x, (__m512i)bits);
}
DIN_INLINE din_lanes_v din_right_v(din_lanes_v x, din_lanes_v bits) {
  return (din_lanes_v)_mm512_srlv_epi64((__m512i)x, (__m512i)bits);
}
DIN_INLINE din_mask_v din_above_v(din_lanes_v x, int64_t k) {
  return _mm512_cmpgt_epi64_mask((__m512i)x, _mm512_set1_epi64(k));
}
DIN_INLINE din_mask_v din_has_v(din_lanes_v x, uint64_t bit) {
  return _mm512_test_epi64_mask((__m512i)x, (__m512i)din_same_v(bit));
}
DIN_INLINE int din_any_of_v(din_mask_v mask) { return mask != 0; }
DIN_INLINE din_lanes_v din_choose_v(din_mask_v mask, din_lanes_v yes, din_lanes_v no) {
  return (din_lanes_v)_mm512_mask_mov_epi64((__m512i)no, mask, (__m512i)yes);
}
DIN_INLINE din_lanes_v din_swap_bytes_v(din_lanes_v x) {
  const __m512i order =
      _mm512_set4_epi32(0x08090A0B, 0x0C0D0E0F, 0x00010203, 0x04050607);
  return (din_lanes_v)_mm512_shuffle_epi8((__m512i)x, order);
}

/* Where a mask says no, a load touches nothing, and does not fault. */
DIN_INLINE void din_words_v(din_lanes_v p, din_lanes_v sizes, int room,
                            din_lanes_v w[4]) {
  uint64_t at[8], masks[8];
  __m512i a, b, c, d;
  din_put(at, p);
#define PLAIN(i) _mm256_loadu_si256((const void *)(uintptr_t)at[i])
#define MASKED(i) \
  _mm256_maskz_loadu_epi8((__mmask32)masks[i], (const void *)(uintptr_t)at[i])
#define PAIR(load, i) \
  _mm512_inserti64x4(_mm512_castsi256_si512(load(i)), load(i + 2), 1)
  if (room) {
    a = PAIR(PLAIN, 0), b = PAIR(PLAIN, 1), c = PAIR(PLAIN, 4), d = PAIR(PLAIN, 5);
  } else {
    din_put(masks, din_left_v(din_same_v(1), sizes) - 1);
    a = PAIR(MASKED, 0), b = PAIR(MASKED, 1), c = PAIR(MASKED, 4), d = PAIR(MASKED, 5);
  }
#undef PAIR
#undef MASKED
#undef PLAIN
  const __m512i e = _mm512_unpacklo_epi64(a, b), f = _mm512_unpackhi_epi64(a, b);
  const __m512i g = _mm512_unpacklo_epi64(c, d), h = _mm512_unpackhi_epi64(c, d);
  w[0] = (din_lanes_v)_mm512_shuffle_i64x2(e, g, 0x88);
  w[1] = (din_lanes_v)_mm512_shuffle_i64x2(f, h, 0x88);
  w[2] = (din_lanes_v)_mm512_shuffle_i64x2(e, g, 0xDD);
  w[3] = (din_lanes_v)_mm512_shuffle_i64x2(f, h, 0xDD);
}
DIN_INLINE void din_two_words_v(din_lanes_v p, din_mask_v mask, din_lanes_v w[2]) {
  uint64_t at[8];
  din_put(at, din_choose_v(mask, p, din_same_v((uint64_t)(uintptr_t)din_zeros)));
#define LOAD(i) _mm_loadu_si128((const void *)(uintptr_t)at[i])
#define ADD(to, i, k) _mm512_inserti64x2(to, LOAD(i), k)
#define FOUR(i) \
  ADD(ADD(ADD(_mm512_castsi128_si512(LOAD(i)), i + 2, 1), i + 4, 2), i + 6, 3)
  const __m512i even = FOUR(0), odd = FOUR(1);
#undef FOUR
#undef ADD
#undef LOAD
  w[0] = (din_lanes_v)_mm512_unpacklo_epi64(even, odd);
  w[1] = (din_lanes_v)_mm512_unpackhi_epi64(even, odd);
}

DIN_INLINE din_halves_v din_join_v(const din_lanes_v x[2], int is_high) {
  const __m512i even =
      _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i order = is_high ? _mm512_or_si512(even, _mm512_set1_epi32(1)) : even;
  return (din_halves_v)_mm512_permutex2var_epi32((__m512i)x[0], order, (__m512i)x[1]);
}
DIN_INLINE din_half_mask_v din_halves_above_v(din_halves_v x, int32_t k) {
  return _mm512_cmpgt_epi32_mask((__m512i)x, _mm512_set1_epi32(k));
}
DIN_INLINE int din_any_of_half_v(din_half_mask_v mask) { return mask != 0; }
DIN_INLINE din_halves_v din_choose_halves_v(din_half_mask_v mask, din_halves_v yes,
                                            din_halves_v no) {
  return (din_halves_v)_mm512_mask_mov_epi32((__m512i)no, mask, (__m512i)yes);
}
DIN_INLINE void din_put_halves(uint64_t *to, din_halves_v x) {
  const __m512i v = (__m512i)x;
  din_put(to, (din_lanes_v)_mm512_cvtepu32_epi64(_mm512_castsi512_si256(v)));
  din_put(to + 8, (din_lanes_v)_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(v, 1)));
}

#else
#include <immintrin.h>

typedef din_lanes_v din_mask_v;
typedef din_halves_v din_half_mask_v;

DIN_INLINE din_lanes_v din_mul32_v(din_lanes_v x, din_lanes_v y) {
  return (din_lanes_v)_mm256_mul_epu32((__m256i)x, (__m256i)y);
}
DIN_INLINE din_lanes_v din_min32(din_lanes_v x, din_lanes_v y) {
  return (din_lanes_v)_mm256_min_epu32((__m256i)x, (__m256i)y);
}
DIN_INLINE din_lanes_v din_left_v(din_lanes_v x, din_lanes_v bits) {
  return (din_lanes_v)_mm256_sllv_epi64((__m256i)x, (__m256i)bits);
}
DIN_INLINE din_lanes_v din_right_v(din_lanes_v x, din_lanes_v bits) {
  return (din_lanes_v)_mm256_srlv_epi64((__m256i)x, (__m256i)bits);
}
DIN_INLINE din_mask_v din_above_v(din_lanes_v x, int64_t k) {
  return (din_lanes_v)_mm256_cmpgt_epi64((__m256i)x, _mm256_set1_epi64x(k));
}
DIN_INLINE int din_any_of_v(din_mask_v mask) {
  return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
}
DIN_INLINE din_lanes_v din_choose_v(din_mask_v mask, din_lanes_v yes, din_lanes_v no) {
  return (din_lanes_v)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, (__m256i)mask);
}
DIN_INLINE din_lanes_v din_swap_bytes_v(din_lanes_v x) {
  const __m256i order = _mm256_set_epi64x(0x08090A0B0C0D0E0F, 0x0001020304050607,
                                          0x08090A0B0C0D0E0F, 0x0001020304050607);
  return (din_lanes_v)_mm256_shuffle_epi8((__m256i)x, order);
}

/* Whole quarters by a masked load, which does not touch the others; then what is left. */
DIN_INLINE __m256i din_load32(uint64_t address, int64_t size, int room) {
  const uint8_t *p = (const uint8_t *)(uintptr_t)address;
  if (room) return _mm256_loadu_si256((const void *)p);
  const __m256i numbers = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  const __m256i count = _mm256_set1_epi32((int)(size >> 2));
  const __m256i whole =
      _mm256_maskload_epi32((const void *)p, _mm256_cmpgt_epi32(count, numbers));
  const uint64_t last =
      size >= 4 ? (uint64_t)din_read_u32(p + size - 4) >> (32 - size % 4 * 8)
                : din_read_few(p, size);
  return _mm256_or_si256(whole, _mm256_and_si256(_mm256_set1_epi32((int)last),
                                                 _mm256_cmpeq_epi32(count, numbers)));
}
DIN_INLINE void din_words_v(din_lanes_v p, din_lanes_v sizes, int room,
                            din_lanes_v w[4]) {
  const __m256i a = din_load32(p[0], (int64_t)sizes[0], room);
  const __m256i b = din_load32(p[1], (int64_t)sizes[1], room);
  const __m256i c = din_load32(p[2], (int64_t)sizes[2], room);
  const __m256i d = din_load32(p[3], (int64_t)sizes[3], room);
  const __m256i e = _mm256_unpacklo_epi64(a, b), f = _mm256_unpackhi_epi64(a, b);
  const __m256i g = _mm256_unpacklo_epi64(c, d), h = _mm256_unpackhi_epi64(c, d);
  w[0] = (din_lanes_v)_mm256_permute2x128_si256(e, g, 0x20);
  w[1] = (din_lanes_v)_mm256_permute2x128_si256(f, h, 0x20);
  w[2] = (din_lanes_v)_mm256_permute2x128_si256(e, g, 0x31);
  w[3] = (din_lanes_v)_mm256_permute2x128_si256(f, h, 0x31);
}
DIN_INLINE void din_two_words_v(din_lanes_v p, din_mask_v mask, din_lanes_v w[2]) {
  const din_lanes_v at =
      din_choose_v(mask, p, din_same_v((uint64_t)(uintptr_t)din_zeros));
#define LOAD(i) _mm_loadu_si128((const void *)(uintptr_t)at[i])
#define TWO(i) _mm256_inserti128_si256(_mm256_castsi128_si256(LOAD(i)), LOAD(i + 2), 1)
  const __m256i even = TWO(0), odd = TWO(1);
#undef TWO
#undef LOAD
  w[0] = (din_lanes_v)_mm256_unpacklo_epi64(even, odd);
  w[1] = (din_lanes_v)_mm256_unpackhi_epi64(even, odd);
}

DIN_INLINE din_halves_v din_join_v(const din_lanes_v x[2], int is_high) {
  const __m256 a = (__m256)x[0], b = (__m256)x[1];
  const __m256 mixed =
      is_high ? _mm256_shuffle_ps(a, b, 0xDD) : _mm256_shuffle_ps(a, b, 0x88);
  return (din_halves_v)_mm256_permute4x64_epi64((__m256i)mixed, 0xD8);
}
DIN_INLINE din_half_mask_v din_halves_above_v(din_halves_v x, int32_t k) {
  return (din_halves_v)_mm256_cmpgt_epi32((__m256i)x, _mm256_set1_epi32(k));
}
DIN_INLINE int din_any_of_half_v(din_half_mask_v mask) {
  return din_any_of_v((din_lanes_v)mask);
}
DIN_INLINE din_halves_v din_choose_halves_v(din_half_mask_v mask, din_halves_v yes,
                                            din_halves_v no) {
  return (din_halves_v)_mm256_blendv_epi8((__m256i)no, (__m256i)yes, (__m256i)mask);
}
DIN_INLINE void din_put_halves(uint64_t *to, din_halves_v x) {
  const __m256i v = (__m256i)x;
  din_put(to, (din_lanes_v)_mm256_cvtepu32_epi64(_mm256_castsi256_si128(v)));
  din_put(to + 4, (din_lanes_v)_mm256_cvtepu32_epi64(_mm256_extracti128_si256(v, 1)));
}
#endif

#if defined(DIN_EMULATE) || DIN_VECTOR_BYTES == 32
DIN_INLINE din_mask_v din_has_v(din_lanes_v x, uint64_t bit) {
  return din_above_v(x & bit, 0);
}
#endif
DIN_INLINE int din_any_v(const din_mask_v *masks) {
  din_mask_v all = masks[0];
  DIN_UNROLL for (int g = 1; g < din_groups_v; ++g) all |= masks[g];
  return din_any_of_v(all);
}
DIN_INLINE int din_any_half_v(const din_half_mask_v *masks) {
  din_half_mask_v all = masks[0];
  DIN_UNROLL for (int g = 1; g < din_groups_v / 2; ++g) all |= masks[g];
  return din_any_of_half_v(all);
}
DIN_INLINE din_lanes_v din_fold_v(din_lanes_v x, din_lanes_v y) {
  const din_lanes_v low = din_mul32_v(x, y), cross = din_mul32_v(x, y >> 32);
  const din_lanes_v middle =
      din_mul32_v(x >> 32, y) + (low >> 32) + (cross & DIN_LOW32);
  const din_lanes_v high =
      din_mul32_v(x >> 32, y >> 32) + (cross >> 32) + (middle >> 32);
  return high ^ (middle << 32 | (low & DIN_LOW32));
}
DIN_INLINE void din_stripe_v(din_lanes_v p, din_mask_v mask, int room,
                             din_lanes_v w[4]) {
  const din_lanes_v sizes = din_choose_v(mask, din_same_v(32), din_same_v(0));
  if (room) p = din_choose_v(mask, p, din_same_v((uint64_t)(uintptr_t)din_zeros));
  din_words_v(p, sizes, room, w);
}
typedef struct {
  din_lanes_v w[4];
} din_short_v;
DIN_INLINE din_short_v din_take_short_v(din_lanes_v p, din_lanes_v n, int room) {
  din_short_v s;
  n = din_choose_v(din_above_v(n, 16), din_same_v(16), n);
  din_words_v(p, n, room, s.w);
  return s;
}
DIN_INLINE din_lanes_v din_first8_v(din_short_v s) { return s.w[0]; }
DIN_INLINE din_lanes_v din_last8_v(din_short_v s, din_lanes_v n) {
  return din_right_v(s.w[0], 8 * n - 64) | din_left_v(s.w[1], 128 - 8 * n);
}
DIN_INLINE din_lanes_v din_first4_v(din_short_v s) { return s.w[0] & DIN_LOW32; }
DIN_INLINE din_lanes_v din_last4_v(din_short_v s, din_lanes_v n) {
  return din_right_v(s.w[0], 8 * n - 32) & DIN_LOW32;
}
DIN_INLINE din_lanes_v din_byte_v(din_short_v s, din_lanes_v i, din_lanes_v n) {
  (void)n;
  return din_right_v(s.w[0], 8 * i) & 255;
}
#endif

#endif /* DIN_HASH_LANES_H */
