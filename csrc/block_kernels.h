/*
 * Blocks of keys for one instruction set: included once by each block_<isa>.c.
 *
 * ISA_NAME, ISA_SYMBOL; DIN_VECTOR_BYTES where it has vectors.
 */
#include <stddef.h>

#include "block.h"
#include "column_inline.h"
#include "hash_constants.h"
#include "hash_lanes.h"

#define LANES 1
#include "hashes.h"
#if defined(DIN_VECTOR_BYTES)
#define LANES v
#include "hashes.h"
#endif

/* ---------------------------------------------------------------------------- keys */

#if defined(DIN_VECTOR_BYTES)
enum { GROUPS = din_groups_v, STEP = GROUPS * DIN_LANES };

enum { FEW = 3 }; /* keys behind the last STEP that are hashed one at a time */

/*
 * Where one of STEP keys has more than bounds[0] bytes, lanes pay if all have more than
 * bounds[1], and none more than 8 times the average: else they wait, for the longest or
 * for steps that are not theirs. ns a key, lanes / one at a time: AVX-512, 100 to 299
 * bytes: XXH64 24 / 44, MurmurHash3 34 / 65, XXH3 46 / 36; 40 to 100: FarmHash 29 / 18.
 * AVX2, 36 bytes: XXH64 15 / 10; 1 to 24: XXH64 11 / 20, XXH3 13 / 9, FarmHash 14 / 7.
 */
#if DIN_VECTOR_BYTES == 64
#define BOUNDS(most, least, most_of_avx2) most, least
#else
#define BOUNDS(most, least, most_of_avx2) most_of_avx2, INT64_MAX
#endif
DIN_INLINE int is_uneven(const int64_t *sizes, int64_t least) {
  int64_t longest = 0, shortest = INT64_MAX, sum = 0;
  for (int i = 0; i < STEP; ++i) {
    longest = sizes[i] > longest ? sizes[i] : longest;
    shortest = sizes[i] < shortest ? sizes[i] : shortest;
    sum += sizes[i];
  }
  return longest > sum / STEP * 8 || shortest <= least;
}

/* STEP keys at once; returns whether they were. */
#define DEFINE_STEP(name, type, put, bounds)                                   \
  DIN_INLINE int step_##name(const uint8_t *const *keys, const int64_t *sizes, \
                             uint64_t end, uint64_t seed, uint64_t *hashes) {  \
    const int64_t limits[2] = {bounds};                                        \
    din_lanes_v p[GROUPS], n[GROUPS];                                          \
    din_mask_v is_near[GROUPS], is_long[GROUPS];                               \
    type h[GROUPS];                                                            \
    for (int g = 0; g < GROUPS; ++g) {                                         \
      p[g] = din_get(keys + g * DIN_LANES);                                    \
      n[g] = din_get(sizes + g * DIN_LANES);                                   \
      is_near[g] = din_above_v(p[g] + n[g] + 32 - end, 0);                     \
      is_long[g] = din_above_v(n[g], limits[0]);                               \
    }                                                                          \
    if (din_any_v(is_long) && is_uneven(sizes, limits[1])) return 0;           \
    din_##name##_v(p, n, !din_any_v(is_near), seed, h);                        \
    put(hashes, h);                                                            \
    return 1;                                                                  \
  }
DEFINE_STEP(xxh64, din_lanes_v, din_put_all, BOUNDS(128, 0, 32))
DEFINE_STEP(murmur3, din_halves_v, din_put_halves, BOUNDS(128, 0, 64))
#if DIN_VECTOR_BYTES == 64
DEFINE_STEP(xxh3, din_lanes_v, din_put_all, BOUNDS(128, 240, 0))
DEFINE_STEP(farmhash, din_lanes_v, din_put_all, BOUNDS(64, 64, 0))
#define STEPS_OF_AVX512 STEPS
#else
#define STEPS_OF_AVX512 NO_STEPS
#endif

#define STEPS(name)                                                   \
  const uint8_t *few_keys[STEP];                                      \
  int64_t few_sizes[STEP];                                            \
  uint64_t few_hashes[STEP];                                          \
  for (; i + STEP <= n; i += STEP) {                                  \
    if (!step_##name(keys + i, sizes + i, end, seed, hashes + i)) {   \
      each_##name(keys + i, sizes + i, STEP, end, seed, hashes + i);  \
    }                                                                 \
  }                                                                   \
  if (n - i > FEW) {                                                  \
    for (int64_t k = 0; k < STEP; ++k) {                              \
      few_keys[k] = i + k < n ? keys[i + k] : din_zeros;              \
      few_sizes[k] = i + k < n ? sizes[i + k] : 0;                    \
    }                                                                 \
    if (step_##name(few_keys, few_sizes, end, seed, few_hashes)) {    \
      for (int64_t k = 0; i < n; ++i, ++k) hashes[i] = few_hashes[k]; \
    }                                                                 \
  }
#else
#define STEPS NO_STEPS
#define STEPS_OF_AVX512 NO_STEPS
#endif
#define NO_STEPS(name)
#define DEFINE_KEYS(name, type, steps)                                                 \
  DIN_NOINLINE void each_##name(const uint8_t *const *keys, const int64_t *sizes,      \
                                int64_t n, uint64_t end, uint64_t seed,                \
                                uint64_t *hashes) {                                    \
    for (int64_t i = 0; i < n; ++i) {                                                  \
      const uint64_t p = (uintptr_t)keys[i], size = (uint64_t)sizes[i];                \
      type h;                                                                          \
      din_##name##_1(&p, &size, p + size + 32 <= end, seed, &h);                       \
      hashes[i] = h;                                                                   \
    }                                                                                  \
  }                                                                                    \
  static void keys_##name(const uint8_t *const *keys, const int64_t *sizes, int64_t n, \
                          const uint8_t *limit, uint64_t seed, uint64_t *hashes) {     \
    const uint64_t end = (uintptr_t)limit;                                             \
    int64_t i = 0;                                                                     \
    steps(name) each_##name(keys + i, sizes + i, n - i, end, seed, hashes + i);        \
  }
DEFINE_KEYS(xxh64, uint64_t, STEPS)
DEFINE_KEYS(xxh3, uint64_t, STEPS_OF_AVX512)
DEFINE_KEYS(murmur3, uint32_t, STEPS)
DEFINE_KEYS(farmhash, uint64_t, STEPS_OF_AVX512)

#define DEFINE_READ_KEYS(bits)                                                     \
  static int read_keys##bits(const uint8_t *bytes, int64_t num_bytes,              \
                             const void *offsets, int64_t n, const uint8_t **keys, \
                             int64_t *sizes) {                                     \
    uint64_t signs = 0;                                                            \
    for (int64_t i = 0; i < n; ++i) {                                              \
      const uint64_t begin = (uint64_t)(int64_t)din_read_i##bits(offsets, i);      \
      const uint64_t end = (uint64_t)(int64_t)din_read_i##bits(offsets, i + 1);    \
      keys[i] = (const uint8_t *)((uintptr_t)bytes + (uintptr_t)begin);            \
      sizes[i] = (int64_t)(end - begin);                                           \
      signs |= begin | end | (end - begin) | ((uint64_t)num_bytes - end);          \
    }                                                                              \
    return signs >> 63 == 0;                                                       \
  }
DEFINE_READ_KEYS(32)
DEFINE_READ_KEYS(64)

/* ------------------------------------------------------------------------- integers */

#if defined(DIN_VECTOR_BYTES)
#define INTS_IN_STEPS(name, size, put)                                           \
  for (; i + STEP <= n; i += STEP) {                                             \
    din_lanes_v key[GROUPS];                                                     \
    din_##size##_v h[GROUPS];                                                    \
    for (int g = 0; g < GROUPS; ++g) key[g] = din_get(keys + i + g * DIN_LANES); \
    din_##name##_int_v(key, seed, h);                                            \
    put(hashes + i, h);                                                          \
  }
#else
#define INTS_IN_STEPS(name, size, put)
#endif
#define DEFINE_INTS(name, size, put)                                     \
  static void ints_##name(const int64_t *keys, int64_t n, uint64_t seed, \
                          uint64_t *hashes) {                            \
    int64_t i = 0;                                                       \
    INTS_IN_STEPS(name, size, put)                                       \
    for (; i < n; ++i) {                                                 \
      const uint64_t key = (uint64_t)keys[i];                            \
      din_##size##_1 h;                                                  \
      din_##name##_int_1(&key, seed, &h);                                \
      hashes[i] = h;                                                     \
    }                                                                    \
  }
DEFINE_INTS(xxh64, lanes, din_put_all)
DEFINE_INTS(xxh3, lanes, din_put_all)
DEFINE_INTS(murmur3, halves, din_put_halves)
DEFINE_INTS(farmhash, lanes, din_put_all)

/* ------------------------------------------------------------------------- reduction */

DIN_INLINE uint64_t reduce_1(uint64_t h, const din_reduction *r) {
  const uint64_t rest = h - din_mul_high_1(h, r->multiplier) * r->divisor;
  return rest >= r->divisor ? rest - r->divisor : rest;
}

DIN_INLINE uint64_t signed32_1(uint64_t h) {
  return h >> 31 & 1 ? h | ~(uint64_t)DIN_LOW32 : h & DIN_LOW32;
}
DIN_INLINE uint64_t absolute_1(uint64_t h) {
  h &= DIN_LOW32;
  return h >> 31 ? ((uint64_t)1 << 32) - h : h;
}
/* The remainder of a signed h that is never negative; m is that of its 64 bits. */
DIN_INLINE uint64_t floored_1(uint64_t h, uint64_t m, const din_reduction *r) {
  if (!(h >> 63)) return m;
  return m >= r->wrap ? m - r->wrap : m + (r->divisor - r->wrap);
}

#if defined(DIN_VECTOR_BYTES)
/*
 * h modulo a divisor below 2^30.
 *
 * The low product and the carries of the 128-bit product are left out: that is less
 * than 3 of its upper half, so the quotient is at most 3 too small (1 more by
 * Barrett's), and what is left, below 4 * divisor, fits 32 bits.
 */
DIN_INLINE din_lanes_v reduce_v(din_lanes_v h, const din_reduction *r) {
  const din_lanes_v d = din_same_v(r->divisor);
  const din_lanes_v low = din_same_v(r->multiplier), high = low >> 32;
  const din_lanes_v quotient = din_mul32_v(h >> 32, high) +
                               (din_mul32_v(h, high) >> 32) +
                               (din_mul32_v(h >> 32, low) >> 32);
  /* of differences the low 32 bits are enough; what is above them is not looked at */
  din_lanes_v rest = h - din_mul32_v(quotient, d);
  rest = din_min32(rest, rest - 2 * d);
  rest = din_min32(rest, rest - d);
  return rest & DIN_LOW32;
}
DIN_INLINE din_lanes_v signed32_v(din_lanes_v h) {
  const din_lanes_v sign = din_same_v((uint64_t)1 << 31);
  return ((h & DIN_LOW32) ^ sign) - sign;
}
DIN_INLINE din_lanes_v floored_v(din_lanes_v h, din_lanes_v m, const din_reduction *r) {
  const din_lanes_v shifted = m + (r->divisor - r->wrap);
  const din_lanes_v floored = din_min32(shifted, shifted - r->divisor) & DIN_LOW32;
  return din_choose_v(din_above_v(h, -1), m, floored);
}
#define REDUCE_LOOP(h_v, id_v, h1, id1)            \
  do {                                             \
    if (r->divisor < (uint64_t)1 << 30) {          \
      for (; i + DIN_LANES <= n; i += DIN_LANES) { \
        const din_lanes_v h = din_get(hashes + i); \
        const din_lanes_v m = reduce_v(h_v, r);    \
        din_put(ids + i, id_v);                    \
      }                                            \
    }                                              \
    REDUCE_REST(h1, id1);                          \
  } while (0)
#else
#define REDUCE_LOOP(h_v, id_v, h1, id1) REDUCE_REST(h1, id1)
#endif
#define REDUCE_REST(h1, id1)            \
  for (; i < n; ++i) {                  \
    const uint64_t h = hashes[i];       \
    const uint64_t m = reduce_1(h1, r); \
    ids[i] = (int64_t)(id1);            \
  }

static void reduce(const uint64_t *hashes, int64_t n, const din_reduction *reduction,
                   int64_t *ids) {
  const din_reduction copy = *reduction; /* which no id can overwrite */
  const din_reduction *r = &copy;
  int64_t i = 0;
  switch (r->kind) {
    case DIN_REDUCE_OFFSET:
      REDUCE_LOOP(h, m + 1, h, m + 1);
      break;
    case DIN_REDUCE_MOD:
      REDUCE_LOOP(h, m, h, m);
      break;
    case DIN_REDUCE_PMOD:
      if (r->is_signed32) {
        REDUCE_LOOP(signed32_v(h), floored_v(signed32_v(h), m, r), signed32_1(h),
                    floored_1(signed32_1(h), m, r));
      } else {
        REDUCE_LOOP(h, floored_v(h, m, r), h, floored_1(h, m, r));
      }
      break;
    case DIN_REDUCE_ABS:
      REDUCE_LOOP(din_min32(h, 0 - h) & DIN_LOW32, m, absolute_1(h), m);
      break;
    default:
      if (hashes != (const uint64_t *)ids) {
        memcpy(ids, hashes, (size_t)n * sizeof *ids);
      }
      break;
  }
}

/* --------------------------------------------------------------------- in and out */

/* Plain C, which compilers turn into vectors of the instruction set. */
#define DEFINE_RISE(bits)                                                       \
  static int rise##bits(const void *offsets, int64_t n) {                       \
    int##bits##_t falls = 0;                                                    \
    for (int64_t i = 0; i < n; ++i) {                                           \
      falls |= din_read_i##bits(offsets, i + 1) < din_read_i##bits(offsets, i); \
    }                                                                           \
    return falls == 0;                                                          \
  }
DEFINE_RISE(32)
DEFINE_RISE(64)

#define DEFINE_HIGHEST(bits)                                      \
  static uint64_t highest##bits(const void *indices, int64_t n) { \
    uint##bits##_t highest = 0;                                   \
    for (int64_t i = 0; i < n; ++i) {                             \
      const uint##bits##_t index = din_read_ui##bits(indices, i); \
      highest = index > highest ? index : highest;                \
    }                                                             \
    return highest;                                               \
  }
DEFINE_HIGHEST(8)
DEFINE_HIGHEST(16)
DEFINE_HIGHEST(32)
DEFINE_HIGHEST(64)

static void write_row(const int64_t *ids, int64_t count, int64_t width, int64_t *out) {
#if defined(DIN_VECTOR_BYTES)
  /* No branch depends on the count, which differs from row to row. */
  static const int64_t numbers[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  int64_t i = 0;
  while (width >= DIN_LANES && i < width) {
    if (i + DIN_LANES > width) i = width - DIN_LANES; /* some once more */
    const din_signed_v is_inside = (din_signed_v)din_get(numbers) < count - i;
    din_put(out + i, din_get(ids + i) & (din_lanes_v)is_inside);
    i += DIN_LANES;
  }
  for (; i < width; ++i) out[i] = ids[i] & -(int64_t)(i < count);
#else
  memcpy(out, ids, (size_t)count * sizeof *ids);
  memset(out + count, 0, (size_t)(width - count) * sizeof *out);
#endif
}

const din_block_isa ISA_SYMBOL = {
    ISA_NAME,
    {keys_xxh64, keys_xxh3, keys_murmur3, keys_farmhash},
    {ints_xxh64, ints_xxh3, ints_murmur3, ints_farmhash},
    reduce,
    {read_keys32, read_keys64},
    {rise32, rise64},
    {highest8, highest16, highest32, highest64},
    write_row,
};
