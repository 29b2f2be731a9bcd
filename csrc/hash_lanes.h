/*
 * Lanes: 1 or 16 unsigned 64-bit integers, and the operations that hashes are made of.
 *
 * Suffix _1 or _16; 16 where DIN_VECTOR_BYTES is defined: 32 (AVX2) or 64 (AVX-512). A
 * `k` is the same for all lanes, an `x32` below 2^32 in each.
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

/*
 * Where keys lie: at the pointers p, or, without any, one behind the other from `base`
 * on, `stride` bytes each. Which of the two is known where this is inlined.
 */
typedef struct {
  const uint8_t *const *p;
  const uint8_t *base;
  int64_t stride;
} din_places;

DIN_INLINE din_places din_places_at(const uint8_t *const *p) {
  return (din_places){p, NULL, 0};
}
DIN_INLINE din_places din_places_every(const uint8_t *base, int64_t stride) {
  return (din_places){NULL, base, stride};
}
DIN_INLINE const uint8_t *din_place(din_places keys, int64_t i) {
  return keys.base == NULL ? keys.p[i] : keys.base + i * keys.stride;
}
/* The keys from the i-th on. */
DIN_INLINE din_places din_from(din_places keys, int64_t i) {
  return keys.base == NULL ? din_places_at(keys.p + i)
                           : din_places_every(keys.base + i * keys.stride, keys.stride);
}

/* ------------------------------------------------------------------------ one lane */

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

DIN_INLINE uint64_t din_load64_1(din_places keys, int64_t at) {
  return din_read_u64(din_place(keys, 0) + at);
}
DIN_INLINE uint64_t din_load32_1(din_places keys, int64_t at) {
  return din_read_u32(din_place(keys, 0) + at);
}
DIN_INLINE uint64_t din_load8_1(din_places keys, int64_t at) {
  return din_place(keys, 0)[at];
}
DIN_INLINE uint64_t din_load_few_1(din_places keys, int64_t n) {
  return din_read_few(din_place(keys, 0), n);
}
DIN_INLINE uint64_t din_get_1(const void *from) {
  uint64_t x;
  memcpy(&x, from, sizeof x);
  return x;
}
DIN_INLINE void din_put_1(void *to, uint64_t x) { memcpy(to, &x, sizeof x); }

/* ------------------------------------------------------------------- sixteen lanes */
#if defined(DIN_VECTOR_BYTES)

typedef uint64_t din_vector __attribute__((vector_size(DIN_VECTOR_BYTES)));
typedef int64_t din_signed_vector __attribute__((vector_size(DIN_VECTOR_BYTES)));
enum {
  DIN_VECTOR_LANES = DIN_VECTOR_BYTES / 8,
  DIN_NUM_VECTORS = 16 / DIN_VECTOR_LANES
};

/* Several vectors in step: what one of them waits for, the others fill. */
typedef struct {
  din_vector v[DIN_NUM_VECTORS];
} din_lanes_16;

#if DIN_VECTOR_BYTES == 32
#include <immintrin.h>
#define DIN_LANE_NUMBERS {0, 1, 2, 3}
#define DIN_LANES_OF(read, i) {read(i), read(i + 1), read(i + 2), read(i + 3)}

/* The low halves, multiplied in full. */
DIN_INLINE din_vector din_multiply32(din_vector x, din_vector y) {
  return (din_vector)_mm256_mul_epu32((__m256i)x, (__m256i)y);
}
DIN_INLINE din_vector din_multiply(din_vector x, uint64_t k) {
  const din_vector all = k - (din_vector){0};
  /* the high half of x by the low one of k, where it belongs already */
  const din_vector high =
      (din_vector)_mm256_mullo_epi32((__m256i)x, (__m256i)(all << 32));
  return din_multiply32(x, all) + ((din_multiply32(x, all >> 32) << 32) + high);
}
DIN_INLINE din_vector din_minimum32(din_vector x, din_vector y) {
  return (din_vector)_mm256_min_epu32((__m256i)x, (__m256i)y);
}

#else
#define DIN_LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#define DIN_LANES_OF(read, i)                          \
  {read(i),     read(i + 1), read(i + 2), read(i + 3), \
   read(i + 4), read(i + 5), read(i + 6), read(i + 7)}

DIN_INLINE din_vector din_multiply(din_vector x, uint64_t k) { return x * k; }
#if defined(__AVX512F__) || defined(__clang__) && !defined(DIN_EMULATE)
#include <immintrin.h>
DIN_INLINE din_vector din_multiply32(din_vector x, din_vector y) {
  return (din_vector)_mm512_mul_epu32((__m512i)x, (__m512i)y);
}
DIN_INLINE din_vector din_minimum32(din_vector x, din_vector y) {
  return (din_vector)_mm512_min_epu32((__m512i)x, (__m512i)y);
}
#else /* the same in plain C, to be tested anywhere */
DIN_INLINE din_vector din_multiply32(din_vector x, din_vector y) {
  return (x & DIN_LOW32) * (y & DIN_LOW32);
}
DIN_INLINE din_vector din_minimum32(din_vector x, din_vector y) {
  typedef uint32_t halves __attribute__((vector_size(DIN_VECTOR_BYTES)));
  const halves a = (halves)x;
  const halves b = (halves)y;
  const halves is_less = (halves)(a < b);
  return (din_vector)((a & is_less) | (b & ~is_less));
}
#endif
#endif

/* All bits of lane i where i < count, none elsewhere. */
DIN_INLINE din_vector din_before(int64_t count) {
  const din_signed_vector numbers = DIN_LANE_NUMBERS;
  return (din_vector)(numbers < count);
}
DIN_INLINE din_vector din_get_vector(const void *from) {
  din_vector x;
  memcpy(&x, from, sizeof x);
  return x;
}
DIN_INLINE void din_put_vector(void *to, din_vector x) { memcpy(to, &x, sizeof x); }

#if defined(__clang__)
#define DIN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define DIN_UNROLL _Pragma("GCC unroll 4")
#endif
#define DIN_DEFINE_16(name, parameters, expression)                                   \
  DIN_INLINE din_lanes_16 din_##name##_16 parameters {                                \
    din_lanes_16 out;                                                                 \
    DIN_UNROLL for (int i = 0; i < DIN_NUM_VECTORS; ++i) { out.v[i] = (expression); } \
    return out;                                                                       \
  }
#define X din_lanes_16 x
#define Y din_lanes_16 y
#define K uint64_t k
DIN_DEFINE_16(same, (K), k - (din_vector){0})
DIN_DEFINE_16(add, (X, Y), x.v[i] + y.v[i])
DIN_DEFINE_16(sub, (X, Y), x.v[i] - y.v[i])
DIN_DEFINE_16(xor, (X, Y), x.v[i] ^ y.v[i])
DIN_DEFINE_16(or, (X, Y), x.v[i] | y.v[i])
DIN_DEFINE_16(and, (X, K), x.v[i] & k)
DIN_DEFINE_16(left, (X, int bits), x.v[i] << bits)
DIN_DEFINE_16(right, (X, int bits), x.v[i] >> bits)
DIN_DEFINE_16(mul, (X, K), din_multiply(x.v[i], k))
DIN_DEFINE_16(mul_low, (X, Y), din_multiply32(x.v[i], y.v[i]))
DIN_DEFINE_16(mul32x32, (X, K), din_multiply32(x.v[i], k - (din_vector){0}))
DIN_DEFINE_16(min32, (X, Y), din_minimum32(x.v[i], y.v[i]))
DIN_DEFINE_16(get, (const void *from),
              din_get_vector((const uint8_t *)from + i * DIN_VECTOR_BYTES))
#undef X
#undef Y
#undef K

DIN_INLINE void din_put_16(void *to, din_lanes_16 x) {
  DIN_UNROLL for (int i = 0; i < DIN_NUM_VECTORS; ++i) {
    din_put_vector((uint8_t *)to + i * DIN_VECTOR_BYTES, x.v[i]);
  }
}
DIN_INLINE din_lanes_16 din_turn_16(din_lanes_16 x, int bits) {
  return din_or_16(din_left_16(x, bits), din_right_16(x, 64 - bits));
}
DIN_INLINE din_lanes_16 din_mul32_16(din_lanes_16 x32, uint64_t k) {
  return din_add_16(din_mul32x32_16(x32, k & DIN_LOW32),
                    din_left_16(din_mul32x32_16(x32, k >> 32), 32));
}
DIN_INLINE din_lanes_16 din_fold_16(din_lanes_16 x, din_lanes_16 y) {
  const din_lanes_16 x_high = din_right_16(x, 32);
  const din_lanes_16 y_high = din_right_16(y, 32);
  const din_lanes_16 low = din_mul_low_16(x, y);
  const din_lanes_16 cross = din_mul_low_16(x, y_high);
  const din_lanes_16 middle =
      din_add_16(din_mul_low_16(x_high, y),
                 din_add_16(din_right_16(low, 32), din_and_16(cross, DIN_LOW32)));
  const din_lanes_16 high =
      din_add_16(din_mul_low_16(x_high, y_high),
                 din_add_16(din_right_16(cross, 32), din_right_16(middle, 32)));
  return din_xor_16(high,
                    din_xor_16(din_left_16(middle, 32), din_and_16(low, DIN_LOW32)));
}
DIN_INLINE din_lanes_16 din_swap_bytes_16(din_lanes_16 x) {
  x = din_turn_16(x, 32);
  x = din_xor_16(din_and_16(din_right_16(x, 16), 0x0000FFFF0000FFFFu),
                 din_left_16(din_and_16(x, 0x0000FFFF0000FFFFu), 16));
  return din_xor_16(din_and_16(din_right_16(x, 8), 0x00FF00FF00FF00FFu),
                    din_left_16(din_and_16(x, 0x00FF00FF00FF00FFu), 8));
}

#define DIN_READ_64(lane) din_read_u64(din_place(keys, lane) + at)
#define DIN_READ_32(lane) din_read_u32(din_place(keys, lane) + at)
#define DIN_READ_8(lane) din_place(keys, lane)[at]
#define DIN_READ_FEW(lane) din_read_few(din_place(keys, lane), n)
#define P din_places keys
#define GATHER(read) (din_vector) DIN_LANES_OF(read, i *DIN_VECTOR_LANES)
DIN_DEFINE_16(load64, (P, int64_t at), GATHER(DIN_READ_64))
DIN_DEFINE_16(load32, (P, int64_t at), GATHER(DIN_READ_32))
DIN_DEFINE_16(load8, (P, int64_t at), GATHER(DIN_READ_8))
DIN_DEFINE_16(load_few, (P, int64_t n), GATHER(DIN_READ_FEW))
#undef P
#undef GATHER
#endif

#endif /* DIN_HASH_LANES_H */
