/*
 * Blocks of keys for one instruction set: included once by each block_<isa>.c.
 *
 * ISA_NAME, ISA_SYMBOL; LANES_OF_ISA is 1 or 16. INTS_BESIDE is how many integers the
 * scalar units hash while the vector units hash 16 (0: they would not keep up).
 */
#include <stddef.h>

#include "block.h"
#include "column_inline.h"
#include "hash_constants.h"
#include "hash_lanes.h"

#define LANES 1
#include "hash_short.h"
#if LANES_OF_ISA == 16
#define LANES 16
#include "hash_short.h"
#endif

/* ---------------------------------------------------------------------------- keys */

typedef uint64_t short_1(din_places, int64_t, uint64_t);
typedef uint64_t whole(const uint8_t *, int64_t, uint64_t);

#if LANES_OF_ISA == 16
typedef din_lanes_16 short_16(din_places, int64_t, uint64_t);
typedef void equal(const uint8_t *const *keys, int64_t size, int64_t n, uint64_t seed,
                   uint64_t *hashes);

/* Hash n keys of `size` bytes each. */
DIN_INLINE void hash_equal(din_places keys, int64_t size, int64_t n, uint64_t seed,
                           uint64_t *hashes, short_1 *one, short_16 *sixteen) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    din_put_16(hashes + i, sixteen(din_from(keys, i), size, seed));
  }
  if (n - i > 3) {
    const uint8_t *rest[16];
    uint64_t out[16];
    for (int64_t k = 0; k < 16; ++k) {
      rest[k] = din_place(keys, i + k < n ? i + k : n - 1);
    }
    din_put_16(out, sixteen(din_places_at(rest), size, seed));
    for (int64_t k = 0; i < n; ++i, ++k) hashes[i] = out[k];
  }
  for (; i < n; ++i) hashes[i] = one(din_from(keys, i), size, seed);
}

/*
 * Hash keys of many lengths: short ones of one length together (a counting sort), long
 * ones as they come, so that their bytes are read in order.
 *
 * Each key has one of WAYS counters of its length in turn, so that keys of one length
 * in a row do not wait for each other's counter.
 */
static void hash_mixed(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                       uint64_t seed, uint64_t *hashes, equal *short_keys, whole *any,
                       int64_t longest) {
  enum { WAYS = 4, CLASSES = 34 };
  const uint8_t *sorted[DIN_BLOCK];
  uint64_t sorted_hashes[DIN_BLOCK];
  uint16_t order[DIN_BLOCK];
  uint8_t classes[DIN_BLOCK];
  uint16_t next[CLASSES][WAYS] = {{0}};
  int64_t num_long = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int is_long = sizes[i] > longest;
    classes[i] = (uint8_t)(is_long ? longest + 1 : sizes[i]);
    num_long += is_long;
    DIN_PREFETCH(keys[i]); /* in the order in which they lie */
  }
  for (int64_t i = 0; num_long > 0 && i < n; ++i) {
    if (sizes[i] > longest) hashes[i] = any(keys[i], sizes[i], seed);
  }
  if (num_long == n) return;
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
      short_keys(sorted + from, size, end - from, seed, sorted_hashes + from);
    }
    from = end;
  }
  for (int64_t i = 0; i < from; ++i) hashes[order[i]] = sorted_hashes[i];
}

static void hash_keys(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                      uint64_t seed, uint64_t *hashes, equal *short_keys, whole *any,
                      int64_t longest) {
  int64_t differ = 0;
  for (int64_t i = 0; i < n; ++i) differ |= sizes[i] ^ sizes[0];
  if (n > 0 && differ == 0 && sizes[0] <= longest) {
    short_keys(keys, sizes[0], n, seed, hashes);
  } else {
    hash_mixed(keys, sizes, n, seed, hashes, short_keys, any, longest);
  }
}

/* Whether keys between offsets, at least one, are all as long as the first. */
#define DEFINE_ARE_EQUAL(bits)                                                        \
  static int are_equal##bits(const void *offsets, int64_t n) {                        \
    const int##bits##_t size =                                                        \
        (int##bits##_t)(din_read_i##bits(offsets, 1) - din_read_i##bits(offsets, 0)); \
    int##bits##_t differ = 0;                                                         \
    for (int64_t i = 0; i < n; ++i) {                                                 \
      differ |= (int##bits##_t)(din_read_i##bits(offsets, i + 1) -                    \
                                din_read_i##bits(offsets, i)) ^                       \
                size;                                                                 \
    }                                                                                 \
    return differ == 0;                                                               \
  }
DEFINE_ARE_EQUAL(32)
DEFINE_ARE_EQUAL(64)

#define DEFINE_SHORT_KEYS(name)                                                       \
  DIN_NOINLINE void equal_##name(const uint8_t *const *keys, int64_t size, int64_t n, \
                                 uint64_t seed, uint64_t *hashes) {                   \
    hash_equal(din_places_at(keys), size, n, seed, hashes, din_##name##_1,            \
               din_##name##_16);                                                      \
  }                                                                                   \
  DIN_NOINLINE void equal_every_##name(const uint8_t *base, int64_t size, int64_t n,  \
                                       uint64_t seed, uint64_t *hashes) {             \
    hash_equal(din_places_every(base, size), size, n, seed, hashes, din_##name##_1,   \
               din_##name##_16);                                                      \
  }
#define SHORT_KEYS(name) equal_##name
#define HASH_EQUAL_STRINGS(name, bits, longest)                 \
  if (n > 0 && are_equal##bits(offsets, n)) {                   \
    const int64_t begin = din_read_i##bits(offsets, 0);         \
    const int64_t size = din_read_i##bits(offsets, 1) - begin;  \
    if (size <= longest) {                                      \
      equal_every_##name(bytes + begin, size, n, seed, hashes); \
      return;                                                   \
    }                                                           \
  }
#else
DIN_INLINE void hash_keys(const uint8_t *const *keys, const int64_t *sizes, int64_t n,
                          uint64_t seed, uint64_t *hashes, short_1 *one, whole *any,
                          int64_t longest) {
  for (int64_t i = 0; i < n; ++i) {
    hashes[i] = sizes[i] <= longest ? one(din_places_at(keys + i), sizes[i], seed)
                                    : any(keys[i], sizes[i], seed);
  }
}
#define DEFINE_SHORT_KEYS(name)
#define SHORT_KEYS(name) din_##name##_1
#define HASH_EQUAL_STRINGS(name, bits, longest)
#endif

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

#define DEFINE_STRINGS(name, bits, longest)                                        \
  static void strings##bits##_##name(const uint8_t *bytes, const void *offsets,    \
                                     int64_t n, uint64_t seed, uint64_t *hashes) { \
    const uint8_t *keys[DIN_BLOCK];                                                \
    int64_t sizes[DIN_BLOCK];                                                      \
    HASH_EQUAL_STRINGS(name, bits, longest)                                        \
    read_keys##bits(bytes, offsets, n, keys, sizes);                               \
    keys_##name(keys, sizes, n, seed, hashes);                                     \
  }
#define DEFINE_KEYS(name, longest)                                                     \
  DEFINE_SHORT_KEYS(name)                                                              \
  static void keys_##name(const uint8_t *const *keys, const int64_t *sizes, int64_t n, \
                          uint64_t seed, uint64_t *hashes) {                           \
    hash_keys(keys, sizes, n, seed, hashes, SHORT_KEYS(name), din_hash_long_##name,    \
              longest);                                                                \
  }                                                                                    \
  DEFINE_STRINGS(name, 32, longest)                                                    \
  DEFINE_STRINGS(name, 64, longest)
DEFINE_KEYS(xxh64, 31)
DEFINE_KEYS(xxh3, 32)
DEFINE_KEYS(murmur3, 32)
DEFINE_KEYS(farmhash, 32)

/* ------------------------------------------------------------------------- integers */

#if LANES_OF_ISA == 16
#define DEFINE_INTS(name)                                                       \
  static void ints_##name(const int64_t *keys, int64_t n, uint64_t seed,        \
                          uint64_t *hashes) {                                   \
    enum { STEP = 16 + INTS_BESIDE };                                           \
    int64_t i = 0;                                                              \
    for (; i + STEP <= n; i += STEP) {                                          \
      uint64_t beside[INTS_BESIDE + 1];                                         \
      for (int64_t k = 0; k < INTS_BESIDE; ++k) {                               \
        beside[k] = din_##name##_int_1((uint64_t)keys[i + 16 + k], seed);       \
      }                                                                         \
      const din_lanes_16 h = din_##name##_int_16(din_get_16(keys + i), seed);   \
      din_put_16(hashes + i, h);                                                \
      for (int64_t k = 0; k < INTS_BESIDE; ++k) hashes[i + 16 + k] = beside[k]; \
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

#if LANES_OF_ISA == 16
/*
 * h modulo a divisor below 2^30.
 *
 * The low product and the carries of the 128-bit product are left out: that is less
 * than 3 of its upper half, so the quotient is at most 3 too small (1 more by
 * Barrett's), and what is left, below 4 * divisor, fits 32 bits.
 */
DIN_INLINE din_lanes_16 reduce_16(din_lanes_16 h, const din_reduction *r) {
  const uint64_t d = r->divisor;
  const din_lanes_16 high = din_right_16(h, 32);
  const din_lanes_16 quotient = din_add_16(
      din_mul32x32_16(high, r->multiplier >> 32),
      din_add_16(din_right_16(din_mul32x32_16(h, r->multiplier >> 32), 32),
                 din_right_16(din_mul32x32_16(high, r->multiplier & DIN_LOW32), 32)));
  /* of differences the low 32 bits are enough; what is above them is not looked at */
  const din_lanes_16 product = din_mul32x32_16(quotient, d);
  din_lanes_16 rest = din_sub_16(h, product);
  rest = din_min32_16(rest, din_sub_16(rest, din_same_16(2 * d)));
  rest = din_min32_16(rest, din_sub_16(rest, din_same_16(d)));
  return din_and_16(rest, DIN_LOW32);
}
#define REDUCE_LOOP(h16, id16, h1, id1)                \
  do {                                                 \
    if (r->divisor < (uint64_t)1 << 30) {              \
      for (; i + 16 <= n; i += 16) {                   \
        const din_lanes_16 h = din_get_16(hashes + i); \
        const din_lanes_16 m = reduce_16(h16, r);      \
        din_put_16(ids + i, id16);                     \
      }                                                \
    }                                                  \
    REDUCE_REST(h1, id1);                              \
  } while (0)
#else
#define REDUCE_LOOP(h16, id16, h1, id1) REDUCE_REST(h1, id1)
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
      REDUCE_LOOP(h, din_add_16(m, din_same_16(1)), h, m + 1);
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
#if LANES_OF_ISA == 16
  /* No branch depends on the count, which differs from row to row. */
  int64_t i = 0;
  for (; i + DIN_VECTOR_LANES <= width; i += DIN_VECTOR_LANES) {
    din_put_vector(out + i, din_get_vector(ids + i) & din_before(count - i));
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
    {strings32_xxh64, strings32_xxh3, strings32_murmur3, strings32_farmhash},
    {strings64_xxh64, strings64_xxh3, strings64_murmur3, strings64_farmhash},
    {ints_xxh64, ints_xxh3, ints_murmur3, ints_farmhash},
    reduce,
    read_keys32,
    read_keys64,
    rise32,
    rise64,
    highest8,
    highest16,
    highest32,
    highest64,
    write_row,
};
