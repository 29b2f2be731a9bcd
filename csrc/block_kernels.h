/*
 * Blocks of keys for one instruction set: included once by each block_<isa>.c.
 *
 * ISA_NAME, ISA_SYMBOL; LANES_OF_ISA is 1 or 8. KEYS_BESIDE and INTS_BESIDE are how
 * many the scalar units hash while the vector units hash eight (0: they would not keep
 * up).
 */
#include <stddef.h>

#include "block.h"
#include "column_inline.h"
#include "hash_constants.h"
#include "hash_lanes.h"

#define LANES 1
#include "hash_short.h"
#if LANES_OF_ISA == 8
#define LANES 8
#include "hash_short.h"
#endif

/* ---------------------------------------------------------------------------- keys */

typedef uint64_t short_1(const uint8_t *const *, int64_t, uint64_t);
typedef uint64_t whole(const uint8_t *, int64_t, uint64_t);

#if LANES_OF_ISA == 8
typedef din_lanes_8 short_8(const uint8_t *const *, int64_t, uint64_t);

/* Hash n keys of `size` bytes each. */
DIN_INLINE void hash_equal(const uint8_t *const *keys, int64_t size, int64_t n,
                           uint64_t seed, uint64_t *hashes, short_1 *one,
                           short_8 *eight) {
  int64_t i = 0;
  for (; i + 8 + KEYS_BESIDE <= n; i += 8 + KEYS_BESIDE) {
    uint64_t beside[KEYS_BESIDE + 1];
    for (int64_t k = 0; k < KEYS_BESIDE; ++k) {
      beside[k] = one(keys + i + 8 + k, size, seed);
    }
    din_put_8(hashes + i, eight(keys + i, size, seed));
    for (int64_t k = 0; k < KEYS_BESIDE; ++k) hashes[i + 8 + k] = beside[k];
  }
  for (; i + 8 <= n; i += 8) {
    din_put_8(hashes + i, eight(keys + i, size, seed));
  }
  if (n - i > 2) {
    const uint8_t *rest[8];
    uint64_t out[8];
    for (int64_t k = 0; k < 8; ++k) rest[k] = keys[i + k < n ? i + k : n - 1];
    din_put_8(out, eight(rest, size, seed));
    for (int64_t k = 0; i < n; ++i, ++k) hashes[i] = out[k];
  }
  for (; i < n; ++i) hashes[i] = one(keys + i, size, seed);
}

/*
 * Hash keys of many lengths: those of one length together (a counting sort).
 *
 * Each key has one of WAYS counters of its length in turn, so that keys of one length
 * in a row do not wait for each other's counter.
 */
DIN_INLINE void hash_mixed(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                           uint64_t seed, uint64_t *hashes, short_1 *one,
                           short_8 *eight, whole *any, int64_t longest) {
  enum { WAYS = 4, CLASSES = 34 };
  const uint8_t *sorted[DIN_BLOCK];
  uint64_t sorted_hashes[DIN_BLOCK];
  uint16_t order[DIN_BLOCK];
  uint8_t classes[DIN_BLOCK];
  uint16_t next[CLASSES][WAYS] = {{0}};
  for (int64_t i = 0; i < n; ++i) {
    classes[i] = (uint8_t)(sizes[i] <= longest ? sizes[i] : longest + 1);
  }
  for (int64_t i = 0; i < n; ++i) next[classes[i]][i % WAYS] += 1;
  uint16_t sum = 0;
  for (int64_t size = 0; size <= longest + 1; ++size) {
    for (int64_t way = 0; way < WAYS; ++way) {
      const uint16_t count = next[size][way];
      next[size][way] = sum;
      sum = (uint16_t)(sum + count);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t at = next[classes[i]][i % WAYS]++;
    sorted[at] = keys[i];
    order[at] = (uint16_t)i;
  }
  int64_t from = 0;
  for (int64_t size = 0; size <= longest; ++size) {
    const int64_t end = next[size][WAYS - 1];
    if (end > from) {
      hash_equal(sorted + from, size, end - from, seed, sorted_hashes + from, one,
                 eight);
    }
    from = end;
  }
  for (int64_t i = 0; i < from; ++i) hashes[order[i]] = sorted_hashes[i];
  for (int64_t i = from; i < n; ++i) {
    hashes[order[i]] = any(sorted[i], sizes[order[i]], seed);
  }
}

DIN_INLINE void hash_keys(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                          uint64_t seed, uint64_t *hashes, short_1 *one, short_8 *eight,
                          whole *any, int64_t longest) {
  int64_t differ = 0;
  for (int64_t i = 0; i < n; ++i) differ |= sizes[i] ^ sizes[0];
  if (n > 0 && differ == 0 && sizes[0] <= longest) {
    hash_equal(keys, sizes[0], n, seed, hashes, one, eight);
  } else {
    hash_mixed(keys, sizes, n, seed, hashes, one, eight, any, longest);
  }
}
#define EIGHT(name) din_##name##_8,
#else
DIN_INLINE void hash_keys(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                          uint64_t seed, uint64_t *hashes, short_1 *one, whole *any,
                          int64_t longest) {
  for (int64_t i = 0; i < n; ++i) {
    hashes[i] = sizes[i] <= longest ? one(keys + i, sizes[i], seed)
                                    : any(keys[i], sizes[i], seed);
  }
}
#define EIGHT(name)
#endif

#define DEFINE_KEYS(name, longest)                                                     \
  static void keys_##name(const uint8_t *const *keys, const int64_t *sizes, int64_t n, \
                          uint64_t seed, uint64_t *hashes) {                           \
    hash_keys(keys, sizes, n, seed, hashes, din_##name##_1,                            \
              EIGHT(name) din_hash_long_##name, longest);                              \
  }
DEFINE_KEYS(xxh64, 31)
DEFINE_KEYS(xxh3, 32)
DEFINE_KEYS(murmur3, 32)
DEFINE_KEYS(farmhash, 32)

/* ------------------------------------------------------------------------- integers */

#if LANES_OF_ISA == 8
#define DEFINE_INTS(name)                                                       \
  static void ints_##name(const int64_t *keys, int64_t n, uint64_t seed,        \
                          uint64_t *hashes) {                                   \
    enum { STEP = 8 + INTS_BESIDE };                                            \
    int64_t i = 0;                                                              \
    for (; i + STEP <= n; i += STEP) {                                          \
      uint64_t beside[INTS_BESIDE + 1];                                         \
      for (int64_t k = 0; k < INTS_BESIDE; ++k) {                               \
        beside[k] = din_##name##_int_1((uint64_t)keys[i + 8 + k], seed);        \
      }                                                                         \
      const din_lanes_8 h = din_##name##_int_8(din_get_8(keys + i), seed);      \
      din_put_8(hashes + i, h);                                                 \
      for (int64_t k = 0; k < INTS_BESIDE; ++k) hashes[i + 8 + k] = beside[k];  \
    }                                                                           \
    for (; i < n; ++i) hashes[i] = din_##name##_int_1((uint64_t)keys[i], seed); \
  }
#else
#define DEFINE_INTS(name)                                                \
  static void ints_##name(const int64_t *keys, int64_t n, uint64_t seed, \
                          uint64_t *hashes) {                            \
    for (int64_t i = 0; i < n; ++i) {                                    \
      hashes[i] = din_##name##_int_1((uint64_t)keys[i], seed);           \
    }                                                                    \
  }
#endif
DEFINE_INTS(xxh64)
DEFINE_INTS(xxh3)
DEFINE_INTS(murmur3)
DEFINE_INTS(farmhash)

/* ------------------------------------------------------------------------- reduction */

DIN_INLINE uint64_t reduce_1(uint64_t h, const din_reduction *r) {
  const uint64_t rest = h - din_mul_high_1(h, r->multiplier) * r->divisor;
  return rest >= r->divisor ? rest - r->divisor : rest;
}

#if LANES_OF_ISA == 8
/*
 * h modulo a divisor below 2^30.
 *
 * The low product and the carries of the 128-bit product are left out: that is less
 * than 3 of its upper half, so the quotient is at most 3 too small (1 more by
 * Barrett's), and what is left, below 4 * divisor, fits 32 bits.
 */
DIN_INLINE din_lanes_8 reduce_8(din_lanes_8 h, const din_reduction *r) {
  const uint64_t d = r->divisor;
  const din_lanes_8 high = din_right_8(h, 32);
  const din_lanes_8 quotient = din_add_8(
      din_mul32x32_8(high, r->multiplier >> 32),
      din_add_8(din_right_8(din_mul32x32_8(h, r->multiplier >> 32), 32),
                din_right_8(din_mul32x32_8(high, r->multiplier & DIN_LOW32), 32)));
  /* minus: the product's low 32 bits are enough */
  const din_lanes_8 product = din_mul32x32_8(quotient, d);
  din_lanes_8 rest = din_and_8(din_sub_8(h, product), DIN_LOW32);
  rest = din_min_8(rest, din_sub_8(rest, din_same_8(2 * d)));
  rest = din_and_8(rest, DIN_LOW32);
  rest = din_min_8(rest, din_sub_8(rest, din_same_8(d)));
  return din_and_8(rest, DIN_LOW32);
}
#define REDUCE_LOOP(h8, id8, h1, id1)                \
  do {                                               \
    if (r->divisor < (uint64_t)1 << 30) {            \
      for (; i + 8 <= n; i += 8) {                   \
        const din_lanes_8 h = din_get_8(hashes + i); \
        const din_lanes_8 m = reduce_8(h8, r);       \
        din_put_8(ids + i, id8);                     \
      }                                              \
    }                                                \
    REDUCE_REST(h1, id1);                            \
  } while (0)
#else
#define REDUCE_LOOP(h8, id8, h1, id1) REDUCE_REST(h1, id1)
#endif
#define REDUCE_REST(h1, id1)            \
  for (; i < n; ++i) {                  \
    const uint64_t h = hashes[i];       \
    const uint64_t m = reduce_1(h1, r); \
    ids[i] = (int64_t)(id1);            \
  }

static void reduce(const uint64_t *hashes, int64_t n, const din_reduction *r,
                   int64_t *ids) {
  int64_t i = 0;
  switch (r->kind) {
    case DIN_REDUCE_OFFSET:
      REDUCE_LOOP(h, din_add_8(m, din_same_8(1)), h, m + 1);
      break;
    case DIN_REDUCE_MOD:
      REDUCE_LOOP(h, m, h, m);
      break;
    case DIN_REDUCE_PMOD:
      for (; i < n; ++i) {
        uint64_t h = hashes[i];
        if (r->is_signed32 && h >> 31) h |= ~(uint64_t)DIN_LOW32;
        const uint64_t m = reduce_1(h, r);
        const uint64_t floored =
            m >= r->wrap ? m - r->wrap : m + (r->divisor - r->wrap);
        ids[i] = (int64_t)(h >> 63 ? floored : m);
      }
      break;
    case DIN_REDUCE_ABS:
      for (; i < n; ++i) {
        const uint64_t low = hashes[i] & DIN_LOW32;
        ids[i] = (int64_t)reduce_1(low >> 31 ? ((uint64_t)1 << 32) - low : low, r);
      }
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
#define DEFINE_READ_KEYS(bits)                                                      \
  static void read_keys##bits(const uint8_t *bytes, const void *offsets, int64_t n, \
                              const uint8_t **keys, int64_t *sizes) {               \
    for (int64_t i = 0; i < n; ++i) {                                               \
      const int64_t begin = din_read_i##bits(offsets, i);                           \
      keys[i] = bytes + begin;                                                      \
      sizes[i] = din_read_i##bits(offsets, i + 1) - begin;                          \
    }                                                                               \
  }
DEFINE_READ_KEYS(32)
DEFINE_READ_KEYS(64)

static void write_row(const int64_t *ids, int64_t count, int64_t width, int64_t *out) {
#if LANES_OF_ISA == 8
  /* No branch depends on the count, which differs from row to row. */
  int64_t i = 0;
  for (; i + 8 <= width; i += 8) {
    din_put_8(out + i, din_mask_8(din_get_8(ids + i), din_before_8(i, count)));
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
    read_keys32,
    read_keys64,
    write_row,
};
