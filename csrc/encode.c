/*
 * Above 400 lines: one pass, and what it reads, finds and writes.
 *
 * Elements of many rows are gathered into a block that stays in the first-level cache,
 * encoded together, and written to their rows.
 */
#include "encode.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "column_inline.h"
#include "decimal.h"

/* Integers below these are exact in the float type; from here on neighbors collapse. */
static const double EXACT_F16 = 2048.0;
static const double EXACT_F32 = 16777216.0;
static const double EXACT_F64 = 9007199254740992.0;

/* Of as many bytes as are read of a key at once, where memory behind it is known. */
static const uint8_t EMPTY[32] = {0};

/*
 * Where a stretch of the block's elements came from, and where its ids go, with zeros
 * behind them up to `width`.
 */
typedef struct {
  int64_t row;
  int64_t element;
  int64_t count;
  int64_t width;
  int64_t *out;
} run;

/*
 * Elements on their way: only the arrays that the encoder reads are filled.
 *
 * `numbers` is `ints`, or the column itself where it lies as wanted. `valid` holds only
 * when `masked`, and `wide`, an integer's way out of int64, when `has_wide`. A fault is
 * met at position `bad`; what stands before it is good.
 */
typedef struct {
  int64_t n;
  int64_t num_runs;
  int64_t bad;
  int32_t fault;
  int32_t masked;
  int32_t has_wide;
  run runs[DIN_BLOCK];
  const uint8_t *keys[DIN_BLOCK];
  int64_t sizes[DIN_BLOCK];
  uint64_t seeds[DIN_BLOCK];
  const uint8_t *end; /* of the bytes in which all keys lie, or NULL */
  const int64_t *numbers;
  int64_t ints[DIN_BLOCK];
  double floats[DIN_BLOCK];
  int64_t ids[2 * DIN_BLOCK]; /* a row of DIN_BLOCK may begin at the last one */
  uint8_t valid[DIN_BLOCK];
  uint8_t wide[DIN_BLOCK];
  uint8_t texts[DIN_BLOCK][DIN_UUID_LETTERS];
} block;

/* ----------------------------------------------------------------------- reading */

static void read_bits(const uint8_t *bitmap, int64_t at, int64_t n, uint8_t *out) {
  int64_t i = 0;
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  for (; i < n && ((at + i) & 7) != 0; ++i) out[i] = (uint8_t)din_bit(bitmap, at + i);
  for (; i + 8 <= n; i += 8) {
    /* bit k to byte k */
    uint64_t x = bitmap[(at + i) >> 3] * UINT64_C(0x0101010101010101);
    x = (x & UINT64_C(0x8040201008040201)) + UINT64_C(0x7F7F7F7F7F7F7F7F);
    x = (x >> 7) & UINT64_C(0x0101010101010101);
    memcpy(out + i, &x, 8);
  }
#endif
  for (; i < n; ++i) out[i] = (uint8_t)din_bit(bitmap, at + i);
}

/* Fill valid[n] from the bitmap; 0 when there is none and valid was left alone. */
static int read_validity(const din_values *v, int64_t first, int64_t n,
                         uint8_t *valid) {
  if (v->type == DIN_NULL) {
    memset(valid, 0, (size_t)n);
    return 1;
  }
  if (v->validity == NULL) {
    return 0;
  }
  read_bits(v->validity, first + v->offset, n, valid);
  return 1;
}

/* Read n <= DIN_BLOCK numbers as float64, whether they are null or not. */
static void read_float64_block(const din_values *v, int64_t first, int64_t n,
                               double *out) {
  const int64_t at = first + v->offset;
  int64_t integers[DIN_BLOCK];
  switch (v->type) {
    case DIN_FLOAT16:
      DIN_READ_LOOP(din_read_f16);
    case DIN_FLOAT32:
      DIN_READ_LOOP(din_read_f32);
    case DIN_FLOAT64:
      DIN_READ_LOOP(din_read_f64);
    case DIN_NULL:
      for (int64_t i = 0; i < n; ++i) out[i] = (double)NAN;
      break;
    case DIN_UINT64:
      for (int64_t i = 0; i < n; ++i) out[i] = (double)din_read_ui64(v->data, at + i);
      break;
    case DIN_DECIMAL32:
    case DIN_DECIMAL64:
    case DIN_DECIMAL128:
    case DIN_DECIMAL256:
      din_round_decimals(v, first, n, out);
      break;
    default:
      din_read_integers(v, first, n, integers);
      for (int64_t i = 0; i < n; ++i) out[i] = (double)integers[i];
      break;
  }
}

static int is_decimal(const din_values *v) {
  return v->type >= DIN_DECIMAL32 && v->type <= DIN_DECIMAL256;
}

/*
 * Read n <= DIN_BLOCK numbers as int64; returns whether valid[n] was written (else all
 * are valid). A float NaN is null. On a fault, entries before *bad are good.
 *
 * Where `wide` is given, a whole number beyond int64 is no fault: wide[i] is its
 * DIN_FITS_UINT64 or DIN_FITS_NEITHER, else 0, and out[i] negative.
 */
static int read_int64_block(const din_values *v, int64_t first, int64_t n, int64_t *out,
                            uint8_t *valid, uint8_t *wide, int32_t *fault,
                            int64_t *bad) {
  int masked = read_validity(v, first, n, valid);
  switch (v->type) {
    case DIN_UINT64: {
      int64_t signs = 0;
      din_read_integers(v, first, n, out);
      for (int64_t i = 0; i < n; ++i) signs |= out[i];
      if (signs >= 0) break;
    } /* fall through */
    case DIN_DECIMAL32:
    case DIN_DECIMAL64:
    case DIN_DECIMAL128:
    case DIN_DECIMAL256: {
      int32_t found = DIN_FITS_INT64;
      const uint8_t *which = masked ? valid : NULL;
      const int64_t stop = din_read_exact(v, first, n, which, out, wide, &found);
      if (stop < n) {
        *fault = found == DIN_IS_FRACTION ? DIN_NOT_WHOLE : DIN_BEYOND_INT64;
        *bad = stop;
      }
    } break;
    case DIN_FLOAT16:
    case DIN_FLOAT32:
    case DIN_FLOAT64: {
      const double exact = v->type == DIN_FLOAT64   ? EXACT_F64
                           : v->type == DIN_FLOAT32 ? EXACT_F32
                                                    : EXACT_F16;
      double numbers[DIN_BLOCK];
      read_float64_block(v, first, n, numbers);
      if (!masked) {
        memset(valid, 1, (size_t)n);
        masked = 1;
      }
      for (int64_t i = 0; i < n; ++i) {
        const double x = numbers[i];
        out[i] = 0;
        if (!valid[i] || x != x) {
          valid[i] = 0;
        } else if (fabs(x) < exact && x == floor(x)) {
          out[i] = (int64_t)x;
        } else {
          const int is_whole = x == floor(x) && !isinf(x);
          *fault = is_whole ? DIN_NOT_EXACT : DIN_NOT_WHOLE;
          *bad = i;
          return masked;
        }
      }
      break;
    }
    case DIN_NULL:
      memset(out, 0, (size_t)n * sizeof *out);
      break;
    default:
      din_read_integers(v, first, n, out);
      break;
  }
  return masked;
}

/* Where n keys lie; a null view may point anywhere, so it is not looked at. Without
 * bytes all keys are empty. Returns the end of the bytes in which the keys lie, NULL
 * where they do not lie in one piece. */
static const uint8_t *read_keys(const din_values *v, const din_block_isa *isa,
                                int64_t first, int64_t n, const uint8_t **keys,
                                int64_t *sizes, uint8_t (*texts)[DIN_UUID_LETTERS]) {
  const int64_t at = first + v->offset;
  const int is_wide = v->type == DIN_BYTES64;
  switch ((is_wide || v->type == DIN_BYTES32) && v->bytes == NULL ? DIN_NULL
                                                                  : v->type) {
    case DIN_BYTES32:
    case DIN_BYTES64:
      if (!isa->read_keys[is_wide](v->bytes, v->num_bytes,
                                   (const uint8_t *)v->data + at * (4 << is_wide), n,
                                   keys, sizes)) {
        break;
      }
      return keys[n - 1] + sizes[n - 1];
    case DIN_BYTES_VIEW:
      for (int64_t i = 0; i < n; ++i) {
        const int is_null = v->validity != NULL && !din_bit(v->validity, at + i);
        const din_key key =
            is_null ? (din_key){EMPTY, 0} : din_key_at(v, DIN_BYTES_VIEW, first + i);
        keys[i] = key.data;
        sizes[i] = key.num_bytes;
      }
      return NULL;
    case DIN_BYTES_FIXED:
      for (int64_t i = 0; i < n; ++i) {
        keys[i] = (const uint8_t *)v->data + (at + i) * v->width;
        sizes[i] = v->width;
      }
      return keys[n - 1] + v->width;
    case DIN_UUID_TEXT:
      for (int64_t i = 0; i < n; ++i) {
        din_format_uuid((const uint8_t *)v->data + (at + i) * DIN_UUID_BYTES, texts[i]);
        keys[i] = texts[i];
        sizes[i] = DIN_UUID_LETTERS;
      }
      return NULL;
    default:
      break;
  }
  for (int64_t i = 0; i < n; ++i) {
    keys[i] = EMPTY;
    sizes[i] = 0;
  }
  return NULL;
}

/*
 * Note whether elements [at, at + n) of the block are valid, where any may not be: which
 * a column decides, so from its first element on.
 */
static uint8_t *valid_at(block *b, int64_t at, int64_t n, int is_needed) {
  assert(!is_needed || b->masked || at == 0);
  if (is_needed) b->masked = 1;
  if (b->masked) memset(b->valid + at, 1, (size_t)n);
  return b->valid + at;
}

/* Read elements [first, first + n) of plain values to position `at` of the block. */
static void read_plain(block *b, const din_values *v, const din_encoder *e,
                       int64_t first, int64_t n, int64_t at) {
  const int is_float = v->type >= DIN_FLOAT16 && v->type <= DIN_FLOAT64;
  const int may_be_null = v->type == DIN_NULL || v->validity != NULL || is_float;
  uint8_t *valid = valid_at(b, at, n, may_be_null);
  if (e->reads == DIN_READS_INT64) {
    int32_t fault = DIN_FINE;
    int64_t bad = -1;
    uint8_t unused[DIN_BLOCK];
    uint8_t *wide = NULL;
    if ((v->type == DIN_UINT64 || is_decimal(v)) && e->type != DIN_ENCODE_BUCKETIZE) {
      wide = memset(b->wide + at, 0, (size_t)n);
      b->has_wide = 1;
    }
    read_int64_block(v, first, n, b->ints + at, may_be_null ? valid : unused, wide,
                     &fault, &bad);
    for (int64_t i = 0; wide != NULL && e->type == DIN_ENCODE_HASH && i < n; ++i) {
      if (wide[i] == DIN_FITS_NEITHER) {
        fault = DIN_BEYOND_64;
        bad = i;
        break;
      }
    }
    if (fault != DIN_FINE && b->fault == DIN_FINE) {
      b->fault = fault;
      b->bad = at + bad;
    }
    return;
  }
  read_validity(v, first, n, valid);
  if (e->reads == DIN_READS_BYTES) {
    const uint8_t *end =
        read_keys(v, e->isa, first, n, b->keys + at, b->sizes + at, b->texts + at);
    if (end > b->end) b->end = end;
  } else {
    /* a hash has a key for NaN */
    const int is_nan_null = is_float && e->type != DIN_ENCODE_HASH;
    read_float64_block(v, first, n, b->floats + at);
    for (int64_t i = 0; is_nan_null && i < n; ++i) {
      valid[i] &= b->floats[at + i] == b->floats[at + i];
    }
  }
}

/* Read elements of a column of dictionary indices: into ints when there are codes. */
static void read_coded(block *b, const din_column *c, const din_encoder *e,
                       const din_codes *codes, int64_t first, int64_t n, int64_t at) {
  const din_values *v = &c->values;
  uint8_t *valid = valid_at(b, at, n, v->validity != NULL);
  int64_t *indices = b->ints + at;
  read_validity(v, first, n, valid);
  din_read_integers(v, first, n, indices);
  for (int64_t i = 0; v->validity != NULL && i < n; ++i) {
    indices[i] = valid[i] ? indices[i] : 0; /* of a null it may be anything */
  }
  for (int64_t i = 0; codes == NULL && i < n; ++i) {
    const int is_inside = (uint64_t)indices[i] < (uint64_t)c->dictionary.length;
    if ((v->validity != NULL && !valid[i]) || !is_inside) {
      b->keys[at + i] = EMPTY;
      b->sizes[at + i] = 0;
      b->floats[at + i] = 0;
    } else {
      read_plain(b, &c->dictionary, e, indices[i], 1, at + i);
    }
  }
  b->end = NULL; /* the keys of nulls lie elsewhere */
}

/* ------------------------------------------------------------------------- encoding */

static int64_t bucket_of(const din_encoder *e, double x) {
  int64_t low = 0;
  int64_t high = e->num_boundaries;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (e->boundaries[middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return 1 + low;
}

/* The hash that equals the encoder's: Spark's is another for text alone. */
static int32_t hash_of(const din_encoder *e) {
  const int is_text = e->reads == DIN_READS_BYTES || e->int_as == DIN_INT_AS_TEXT;
  const int is_standard = e->hash == DIN_HASH_MURMUR3_32_SPARK && !is_text;
  return is_standard ? DIN_HASH_MURMUR3_32 : e->hash;
}

static void hash_keys(const din_encoder *e, const uint8_t *const *keys,
                      const int64_t *sizes, int64_t n, const uint8_t *end,
                      uint64_t seed, uint64_t *hashes) {
  if (hash_of(e) < DIN_NUM_HASHES) {
    e->isa->hash_keys[hash_of(e)](keys, sizes, n, end, seed, hashes);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    hashes[i] = din_hash_other(e->hash, keys[i], sizes[i], seed, e->second_seed);
  }
}

/* Hash each key by its own seed; a null has the hash of its seed: none. */
static void hash_seeded(block *b, const din_encoder *e, const uint8_t *end,
                        uint64_t *hashes) {
  for (int64_t first = 0, stop; first < b->n; first = stop) {
    const uint64_t seed = b->seeds[first];
    for (stop = first + 1; stop < b->n && b->seeds[stop] == seed;) ++stop;
    hash_keys(e, b->keys + first, b->sizes + first, stop - first, end, seed,
              hashes + first);
  }
  const int is_marked =
      e->reduction.kind != DIN_REDUCE_RAW && din_hash_has_32_bits(e->hash);
  for (int64_t i = 0; b->masked && i < b->n; ++i) {
    if (!b->valid[i]) hashes[i] = b->seeds[i];
    if (is_marked) hashes[i] &= ~DIN_FIRST_SEED;
  }
}

/* @pre no valid key is too long; those of nulls are empty */
static __attribute__((noinline)) void hash_prefixed(const block *b,
                                                    const din_encoder *e,
                                                    uint64_t *hashes) {
  uint8_t texts[DIN_MAX_PREFIXED];
  const uint8_t *end = texts + DIN_MAX_PREFIXED;
  const uint8_t *keys[DIN_BLOCK];
  int64_t sizes[DIN_BLOCK];
  int64_t first = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < b->n; ++i) {
    sizes[i] = e->prefix.num_bytes + b->sizes[i];
    if (at + sizes[i] > DIN_MAX_PREFIXED) {
      hash_keys(e, keys + first, sizes + first, i - first, end, e->seed,
                hashes + first);
      first = i;
      at = 0;
    }
    keys[i] = texts + at;
    memcpy(texts + at, e->prefix.data, (size_t)e->prefix.num_bytes);
    at += e->prefix.num_bytes;
    memcpy(texts + at, b->keys[i], (size_t)b->sizes[i]);
    at += b->sizes[i];
  }
  hash_keys(e, keys + first, sizes + first, b->n - first, end, e->seed, hashes + first);
}

/* Rounded to nearest, as a cast to float is where it is in range. */
static float round_to_float(double x) {
  static const double TOO_LARGE = 3.4028235677973366e38;
  return fabs(x) < TOO_LARGE ? (float)x : copysignf(HUGE_VALF, x < 0 ? -1 : 1);
}

/* The bits of floats as integers: those of all NaN are one, and of both zeros. */
static void read_bits_of_floats(block *b, const din_encoder *e) {
  b->numbers = b->ints;
  for (int64_t i = 0; i < b->n; ++i) {
    const double x = b->floats[i] == 0 ? 0 : b->floats[i];
    if (e->int_as == DIN_INT_AS_BYTES4) {
      const float rounded = round_to_float(x);
      const float narrow = rounded == 0 ? 0 : rounded;
      uint32_t bits;
      memcpy(&bits, &narrow, sizeof bits);
      b->ints[i] = x != x ? 0x7FC00000 : (int64_t)bits;
    } else {
      memcpy(b->ints + i, &x, sizeof x);
      if (x != x) b->ints[i] = 0x7FF8000000000000;
    }
  }
}

/* Make keys of the block's integers. */
static void write_numbers(block *b, const din_encoder *e,
                          uint8_t (*texts)[DIN_MAX_DIGITS]) {
  const int size = e->int_as == DIN_INT_AS_BYTES4 ? 4 : 8;
  for (int64_t i = 0; i < b->n; ++i) {
    int64_t at = 0;
    b->sizes[i] = size;
    if (e->int_as == DIN_INT_AS_TEXT) {
      at = din_format_int64(b->numbers[i], b->has_wide && b->wide[i], texts[i]);
      b->sizes[i] = DIN_MAX_DIGITS - at;
    } else {
      const uint64_t bits = (uint64_t)b->numbers[i];
      for (int k = 0; k < size; ++k) texts[i][k] = (uint8_t)(bits >> 8 * k);
    }
    b->keys[i] = texts[i] + at;
  }
}

static void hash_block(block *b, const din_encoder *e) {
  uint64_t *hashes = (uint64_t *)b->ids;
  uint8_t is_negative[DIN_BLOCK];
  uint8_t texts[DIN_BLOCK][DIN_MAX_DIGITS];
  const int is_bytes = e->reads == DIN_READS_BYTES;
  const uint8_t *end = is_bytes ? b->end : texts[DIN_BLOCK - 1] + DIN_MAX_DIGITS;
  if (e->reads == DIN_READS_FLOAT64) read_bits_of_floats(b, e);
  if (!is_bytes && e->int_as == DIN_INT_AS_BYTES && hash_of(e) < DIN_NUM_HASHES &&
      !e->is_seeded) {
    e->isa->hash_ints[hash_of(e)](b->numbers, b->n, e->seed, hashes);
  } else {
    if (!is_bytes) write_numbers(b, e, texts);
    if (e->is_seeded) {
      hash_seeded(b, e, end, hashes);
    } else if (e->prefix.num_bytes > 0) {
      hash_prefixed(b, e, hashes);
    } else {
      hash_keys(e, b->keys, b->sizes, b->n, end, e->seed, hashes);
    }
  }
  for (int64_t i = 0; e->has_sign && i < b->n; ++i) {
    is_negative[i] = hashes[i] >> 31 & 1;
  }
  e->isa->reduce(hashes, b->n, &e->reduction, b->ids);
  for (int64_t i = 0; e->has_sign && i < b->n; ++i) {
    b->ids[i] += is_negative[i] ? (int64_t)e->reduction.divisor : 0;
  }
}

/* Give what has no id (0 here, -1 for identity) the unseen one, or stop at it. */
static void settle_unseen(block *b, const din_encoder *e, int64_t none,
                          din_tally *tally) {
  const int64_t id = e->unseen == DIN_UNSEEN_ROW ? e->num_rows - 1 : 0;
  for (int64_t i = 0; i < b->n; ++i) {
    if (b->ids[i] != none || (b->masked && !b->valid[i])) continue;
    if (e->unseen == DIN_UNSEEN_ERROR) {
      b->fault = DIN_HAS_NO_ID;
      b->bad = i;
      b->n = i;
      return;
    }
    tally->unseen += 1;
    b->ids[i] = id;
  }
}

/*
 * Stop at the first integer that 4 bytes do not hold. Inlined, it would cost the loops
 * beside it a third: identity 1.8 ns an element, not 1.3.
 */
static __attribute__((noinline)) void check_int32(block *b) {
  for (int64_t i = 0; i < b->n; ++i) {
    if (b->masked && !b->valid[i]) continue;
    const int64_t number = b->numbers[i];
    if (number < INT32_MIN || number > INT32_MAX || (b->has_wide && b->wide[i])) {
      b->fault = DIN_BEYOND_INT32;
      b->bad = b->n = i;
    }
  }
}

/* Make the masked value null. */
static __attribute__((noinline)) void mask_block(block *b, const din_encoder *e) {
  if (!b->masked) memset(b->valid, 1, (size_t)b->n);
  b->masked = 1;
  const int64_t size = e->mask_key.num_bytes;
  for (int64_t i = 0; i < b->n; ++i) {
    if (e->reads != DIN_READS_BYTES) {
      b->valid[i] &= b->numbers[i] != e->mask_number || (b->has_wide && b->wide[i]);
    } else if (b->sizes[i] == size) {
      b->valid[i] &= memcmp(b->keys[i], e->mask_key.data, (size_t)size) != 0;
    }
  }
}

/* Stop at the first key that is too long for its prefix; those of nulls may be. */
static __attribute__((noinline)) void check_sizes(block *b, const din_encoder *e) {
  for (int64_t i = 0; i < b->n; ++i) {
    if (b->masked && !b->valid[i]) {
      b->sizes[i] = 0;
    } else if (b->sizes[i] > DIN_MAX_PREFIXED - e->prefix.num_bytes) {
      b->fault = DIN_TOO_LONG;
      b->bad = b->n = i;
    }
  }
}

static void encode_plain_block(block *b, const din_encoder *e, din_tally *tally) {
  switch (e->type) {
    case DIN_ENCODE_HASH:
      if (e->has_mask) mask_block(b, e);
      if (e->reads == DIN_READS_INT64 && e->int_as == DIN_INT_AS_BYTES4) check_int32(b);
      if (e->prefix.num_bytes > 0 && e->reads == DIN_READS_BYTES) check_sizes(b, e);
      hash_block(b, e);
      break;
    case DIN_ENCODE_VOCAB:
      if (e->reads == DIN_READS_BYTES) {
        din_find_bytes(&e->vocab, b->keys, b->sizes, b->n, b->end, b->ids);
      } else {
        din_find_ints(&e->vocab, b->numbers, b->n, b->ids);
        for (int64_t i = 0; b->has_wide && i < b->n; ++i) {
          b->ids[i] = b->wide[i] ? 0 : b->ids[i];
        }
      }
      settle_unseen(b, e, 0, tally);
      break;
    case DIN_ENCODE_IDENTITY:
      for (int64_t i = 0; i < b->n; ++i) {
        const int64_t number = b->numbers[i];
        b->ids[i] = number >= 0 && number < e->num_rows ? number : -1;
      }
      settle_unseen(b, e, -1, tally);
      break;
    default:
      for (int64_t i = 0; i < b->n; ++i) {
        const double x =
            e->reads == DIN_READS_INT64 ? (double)b->numbers[i] : b->floats[i];
        b->ids[i] = bucket_of(e, x);
      }
      break;
  }
}

/* Indices were checked before, in memory that another thread may have changed since. */
static int64_t index_of(const block *b, int64_t i, const din_codes *codes) {
  const int64_t index = *(const volatile int64_t *)&b->numbers[i];
  return (uint64_t)index < (uint64_t)codes->num_ids ? index : 0;
}

/* Ids of dictionary indices: the entries' own were found before. */
static void encode_coded_block(block *b, const din_codes *codes, din_tally *tally) {
  if (codes->num_ids == 0) { /* an empty dictionary: all are null */
    memset(b->ids, 0, (size_t)b->n * sizeof *b->ids);
    return;
  }
  for (int64_t i = 0; i < b->n; ++i) b->ids[i] = codes->ids[index_of(b, i, codes)];
  for (int64_t i = 0; codes->has_special && i < b->n; ++i) {
    if (b->masked && !b->valid[i]) continue;
    const uint8_t code = codes->codes[index_of(b, i, codes)];
    tally->nulls += code == DIN_CODE_NULL;
    tally->unseen += code == DIN_CODE_UNSEEN;
    if (code >= DIN_CODE_FAULT) {
      b->fault = code - DIN_CODE_FAULT;
      b->bad = i;
      return;
    }
  }
}

typedef struct {
  const din_column *column;
  const din_encoder *encoder;
  const din_codes *codes;
  int32_t newest_first;
  din_tally *tally;
  block *block;
} pass;

static void find_bad(const pass *p) {
  const block *b = p->block;
  int64_t left = b->bad;
  const run *r = b->runs;
  while (left >= r->count) left -= (r++)->count;
  p->tally->fault = b->fault;
  p->tally->bad = r->element + left;
  p->tally->bad_row = p->column->nesting == DIN_SCALAR ? p->tally->bad : r->row;
}

/* Have all of the block where it lies in the column, if that serves the encoder. */
static int lies_as_wanted(block *b, const din_values *v, const din_encoder *e,
                          int64_t first) {
  if (v->type == DIN_INT64 && e->reads == DIN_READS_INT64 &&
      (uintptr_t)v->data % 8 == 0) {
    b->numbers = (const int64_t *)v->data + first + v->offset;
  } else {
    return 0;
  }
  uint8_t *valid = valid_at(b, 0, b->n, v->validity != NULL);
  read_validity(v, first, b->n, valid);
  return 1;
}

/* Read what the runs say; those that follow each other in the column, at once. */
static void read_block(const pass *p) {
  block *b = p->block;
  const din_column *c = p->column;
  const din_values *v = &c->values;
  int64_t at = 0;
  b->numbers = b->ints;
  b->end = NULL;
  for (int64_t i = 0; i < b->num_runs && b->fault == DIN_FINE;) {
    const int64_t first = b->runs[i].element;
    int64_t n = b->runs[i].count;
    for (++i; n > 0 && i < b->num_runs; ++i) {
      if (b->runs[i].count > 0 && b->runs[i].element != first + n) break;
      n += b->runs[i].count;
    }
    if (n == 0) continue;
    if (c->has_dictionary) {
      read_coded(b, c, p->encoder, p->codes, first, n, at);
    } else if (n < b->n || !lies_as_wanted(b, v, p->encoder, first)) {
      read_plain(b, v, p->encoder, first, n, at);
    }
    at += n;
  }
}

/* Take the seeds from where the ids will be. */
static void read_seeds(const pass *p) {
  uint64_t *to = p->block->seeds;
  for (const run *r = p->block->runs; r < p->block->runs + p->block->num_runs; ++r) {
    for (int64_t i = 0; i < r->count; ++i) {
      *to++ = (uint64_t)r->out[p->newest_first ? -i : i];
    }
  }
}

/* Count the nulls of the block, whose ids are 0: or made of seeds, where it has them. */
static void settle_nulls(const pass *p) {
  block *b = p->block;
  const din_encoder *e = p->encoder;
  for (int64_t i = 0; e->is_seeded && e->reduction.kind != DIN_REDUCE_RAW && i < b->n;
       ++i) {
    /* Of 64 bits, one hash in 2^64 equals the first seed. */
    p->tally->nulls += !b->valid[i] && b->seeds[i] == e->seed;
  }
  for (int64_t i = 0; !e->is_seeded && i < b->n; ++i) {
    p->tally->nulls += !b->valid[i];
    b->ids[i] = b->valid[i] ? b->ids[i] : 0;
  }
}

/* Encode the block and write its ids where they belong: at a fault, those before it. */
static void flush(const pass *p) {
  block *b = p->block;
  read_block(p);
  if (p->encoder->is_seeded) read_seeds(p);
  if (b->fault != DIN_FINE) b->n = b->bad; /* an earlier one may have no id */
  if (p->codes != NULL) {
    encode_coded_block(b, p->codes, p->tally);
  } else {
    encode_plain_block(b, p->encoder, p->tally);
  }
  if (b->fault != DIN_FINE) {
    b->n = b->bad;
    find_bad(p);
  }
  if (b->masked) settle_nulls(p);
  const int64_t *from = b->ids;
  for (const run *r = b->runs; r < b->runs + b->num_runs; ++r) {
    const int64_t left = b->ids + b->n - from;
    const int64_t n = r->count < left ? r->count : left;
    if (p->newest_first) {
      for (int64_t i = 0; i < n; ++i) r->out[-i] = from[i];
    } else {
      /* behind a fault other rows may have their seeds */
      p->encoder->isa->write_row(from, n, n < r->count ? n : r->width, r->out);
    }
    if (n < r->count) break; /* it holds the fault */
    from += n;
  }
  b->n = b->num_runs = b->masked = b->has_wide = 0;
}

/* Take elements [element, element + count) of a row; ids go to `out` and behind it. */
static void push(const pass *p, int64_t row, int64_t element, int64_t count,
                 int64_t *out) {
  block *b = p->block;
  while (count > 0 && p->tally->fault == DIN_FINE) {
    const int64_t room = DIN_BLOCK - b->n;
    const int64_t n = count < room ? count : room;
    b->runs[b->num_runs++] = (run){row, element, n, n, out};
    b->n += n;
    element += n;
    count -= n;
    if (count > 0) out += p->newest_first ? -n : n;
    if (b->n == DIN_BLOCK) flush(p);
  }
}

void din_encode_dictionary(const din_column *c, const din_encoder *e, int64_t *ids,
                           uint8_t *codes, int32_t *has_special) {
  din_column entries = {0};
  entries.nesting = DIN_SCALAR;
  entries.num_rows = c->dictionary.length;
  entries.values = c->dictionary;
  *has_special = 0;
  for (int64_t first = 0; first < entries.num_rows; first += DIN_BLOCK) {
    const int64_t left = entries.num_rows - first;
    const int64_t stop = first + (left < DIN_BLOCK ? left : DIN_BLOCK);
    din_tally tally = {0};
    din_encode_scalars(&entries, e, NULL, first, stop, ids, &tally);
    memset(codes + first, DIN_CODE_ID, (size_t)(stop - first));
    if (tally.nulls + tally.unseen == 0 && tally.fault == DIN_FINE) continue;
    *has_special = 1;
    for (int64_t row = first; row < stop; ++row) { /* which of them is it? */
      din_tally one = {0};
      ids[row] = 0;
      din_encode_scalars(&entries, e, NULL, row, row + 1, ids, &one);
      codes[row] = one.fault != DIN_FINE ? (uint8_t)(DIN_CODE_FAULT + one.fault)
                   : one.nulls           ? DIN_CODE_NULL
                   : one.unseen          ? DIN_CODE_UNSEEN
                                         : DIN_CODE_ID;
    }
  }
}

void din_encode_scalars(const din_column *c, const din_encoder *e,
                        const din_codes *codes, int64_t first, int64_t stop,
                        int64_t *ids, din_tally *tally) {
  block b;
  b.n = b.num_runs = b.fault = b.masked = b.has_wide = 0;
  const pass p = {c, e, codes, 0, tally, &b};
  push(&p, first, first, stop - first, ids + first);
  if (tally->fault == DIN_FINE) flush(&p);
}

/* ------------------------------------------------------------------------------ lists */

/* The elements of one row that are encoded. */
typedef struct {
  int64_t first;
  int64_t count;
} span;

static span span_of(const din_column *c, const din_window *w, int64_t row) {
  int64_t start;
  int64_t count;
  din_row_bounds_inline(c, row, &start, &count);
  if (w->kept != NULL) {
    if (w->skip != NULL) start += w->skip[row];
    count = w->kept[row];
    /* The row may have become another one since the window was made. */
    const int64_t last = c->values.length - count;
    start = start <= last ? start : last;
  }
  if (count > w->width) {
    start += w->newest_first ? 0 : count - w->width;
    count = w->width;
  }
  return (span){start, count};
}

static int64_t width_of(const din_values *v) {
  static const uint8_t widths[] = {
      [DIN_BOOL8] = 1,       [DIN_INT8] = 1,       [DIN_INT16] = 2,
      [DIN_INT32] = 4,       [DIN_INT64] = 8,      [DIN_UINT8] = 1,
      [DIN_UINT16] = 2,      [DIN_UINT32] = 4,     [DIN_UINT64] = 8,
      [DIN_FLOAT16] = 2,     [DIN_FLOAT32] = 4,    [DIN_FLOAT64] = 8,
      [DIN_DECIMAL32] = 4,   [DIN_DECIMAL64] = 8,  [DIN_DECIMAL128] = 16,
      [DIN_DECIMAL256] = 32, [DIN_UUID_TEXT] = 16,
  };
  return v->type == DIN_BYTES_FIXED ? v->width : widths[v->type];
}

static int is_same_bytes(const din_values *v, int64_t first, int64_t second,
                         int64_t n) {
  const int is_wide = v->type == DIN_BYTES64;
#define END(i) \
  (is_wide ? din_read_i64(v->data, (i)) : (int64_t)din_read_i32(v->data, (i)))
  first += v->offset;
  second += v->offset;
  const int64_t begin = END(first), other = END(second), apart = other - begin;
  const int64_t size = END(first + n) - begin;
  if (END(second + n) - other != size || !din_lies_within(begin, size, v->num_bytes) ||
      !din_lies_within(other, size, v->num_bytes)) {
    return 0;
  }
  if (size > 0 && memcmp(v->bytes + begin, v->bytes + other, (size_t)size) != 0) {
    return 0;
  }
  int64_t differ = 0;
  for (int64_t i = 1; i < n; ++i) differ |= END(second + i) - END(first + i) - apart;
#undef END
  return differ == 0;
}

/* Views of equal text may point to different places, and those of nulls anywhere. */
static int is_same_views(const din_values *v, int64_t first, int64_t second,
                         int64_t n) {
  const uint8_t *views = (const uint8_t *)v->data + v->offset * 16;
  if (memcmp(views + first * 16, views + second * 16, (size_t)(n * 16)) == 0) return 1;
  for (int64_t i = 0; i < n; ++i) {
    if (!din_is_valid(v, first + i) || !din_is_valid(v, second + i)) continue;
    const din_key one = din_key_at(v, DIN_BYTES_VIEW, first + i);
    const din_key other = din_key_at(v, DIN_BYTES_VIEW, second + i);
    if (one.num_bytes != other.num_bytes) return 0;
    if (one.data != other.data &&
        memcmp(one.data, other.data, (size_t)one.num_bytes) != 0) {
      return 0;
    }
  }
  return 1;
}

static int is_same_bits(const uint8_t *bitmap, int64_t first, int64_t second,
                        int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (din_bit(bitmap, first + i) != din_bit(bitmap, second + i)) return 0;
  }
  return 1;
}

/*
 * Whether two stretches hold the same elements, as exploded tables have them: judged by
 * their bytes, so that a no is not certain.
 */
static int is_same(const din_column *c, span one, span other) {
  const din_values *v = &c->values;
  if (one.count != other.count || one.count == 0) return 0;
  if (one.first == other.first || v->type == DIN_NULL) return 1;
  const int64_t n = one.count;
  const int64_t first = one.first + v->offset;
  const int64_t second = other.first + v->offset;
  int same;
  if (v->type == DIN_BYTES32 || v->type == DIN_BYTES64) {
    same = is_same_bytes(v, one.first, other.first, n);
  } else if (v->type == DIN_BYTES_VIEW) {
    same = is_same_views(v, one.first, other.first, n);
  } else if (v->type == DIN_BOOL) {
    same = is_same_bits(v->data, first, second, n);
  } else {
    const uint8_t *data = v->data;
    const int64_t width = width_of(v);
    same =
        memcmp(data + first * width, data + second * width, (size_t)(n * width)) == 0;
  }
  return same && (v->validity == NULL || is_same_bits(v->validity, first, second, n));
}

/* Take a row, and pad it. */
static void push_row(const pass *p, const din_window *w, int64_t row, span s,
                     int64_t *out) {
  block *b = p->block;
  if (w->positions == NULL && !w->newest_first && w->width <= DIN_BLOCK) {
    if (b->n + s.count > DIN_BLOCK || b->num_runs == DIN_BLOCK) flush(p);
    if (p->tally->fault != DIN_FINE) return;
    b->runs[b->num_runs++] = (run){row, s.first, s.count, w->width, out};
    b->n += s.count;
    return;
  }
  memset(out + s.count, 0, (size_t)(w->width - s.count) * sizeof *out);
  if (s.count == 0) return;
  if (w->positions == NULL) {
    push(p, row, s.first, s.count, w->newest_first ? out + s.count - 1 : out);
    return;
  }
  int64_t start;
  int64_t count;
  din_row_bounds_inline(p->column, row, &start, &count);
  const int64_t *positions = w->positions + w->position_start[row];
  if (!w->newest_first) positions += w->kept[row] - s.count;
  for (int64_t t = 0; t < s.count; ++t) {
    const int64_t to = w->newest_first ? s.count - 1 - t : t;
    const int64_t i = start + positions[t], last = p->column->values.length - 1;
    push(p, row, i < last ? i : last, 1, out + to);
  }
}

#define LOOK_UP(read)                                             \
  for (int64_t i = 0; i < n; ++i) {                               \
    const uint64_t index = (uint64_t)(int64_t)read(data, at + i); \
    out[i] = ids[index < num_ids ? index : 0];                    \
  }                                                               \
  break

/* Ids of n plain dictionary indices: no null, nothing unseen. */
static void look_up(const din_values *v, int64_t first, int64_t n,
                    const din_codes *codes, int64_t *out) {
  const int64_t at = first + v->offset, *ids = codes->ids;
  const uint64_t num_ids = (uint64_t)codes->num_ids;
  const void *data = v->data;
  switch (v->type) {
    case DIN_INT8:
      LOOK_UP(din_read_i8);
    case DIN_INT16:
      LOOK_UP(din_read_i16);
    case DIN_INT32:
      LOOK_UP(din_read_i32);
    case DIN_UINT8:
      LOOK_UP(din_read_ui8);
    case DIN_UINT16:
      LOOK_UP(din_read_ui16);
    case DIN_UINT32:
      LOOK_UP(din_read_ui32);
    default:
      LOOK_UP(din_read_i64);
  }
}

static void look_rows_up(const din_column *c, const din_codes *codes,
                         const din_window *w, int64_t first, int64_t stop,
                         int64_t *padded) {
  for (int64_t row = first; row < stop; ++row) {
    const span s = span_of(c, w, row);
    int64_t *out = padded + row * w->width;
    look_up(&c->values, s.first, s.count, codes, out);
    memset(out + s.count, 0, (size_t)(w->width - s.count) * sizeof *out);
  }
}

void din_encode_lists(const din_column *c, const din_encoder *e, const din_codes *codes,
                      const din_window *w, int64_t first, int64_t stop, int64_t *padded,
                      din_tally *tally) {
  if (codes != NULL && !codes->has_special && codes->num_ids > 0 &&
      c->values.validity == NULL && !w->newest_first && w->positions == NULL) {
    look_rows_up(c, codes, w, first, stop, padded);
    return;
  }
  block b;
  b.n = b.num_runs = b.fault = b.masked = b.has_wide = 0;
  const pass p = {c, e, codes, w->newest_first, tally, &b};
  const size_t row_bytes = (size_t)w->width * sizeof *padded;
  const span none = {0, 0};
  span next = first < stop ? span_of(c, w, first) : none;
  for (int64_t row = first; row < stop && tally->fault == DIN_FINE; ++row) {
    const span here = next;
    int64_t *out = padded + row * w->width;
    next = row + 1 < stop ? span_of(c, w, row + 1) : none;
    if (here.count != next.count || w->positions != NULL || e->is_seeded ||
        !is_same(c, here, next)) {
      push_row(&p, w, row, here, out);
      continue;
    }
    /* Rows that repeat this one get a copy of its ids, and count as it does. */
    flush(&p);
    const din_tally before = *tally;
    if (tally->fault == DIN_FINE) push_row(&p, w, row, here, out);
    if (tally->fault == DIN_FINE) flush(&p);
    const int64_t nulls = tally->nulls - before.nulls;
    const int64_t unseen = tally->unseen - before.unseen;
    while (tally->fault == DIN_FINE && row + 1 < stop && is_same(c, here, next)) {
      ++row;
      memcpy(padded + row * w->width, out, row_bytes);
      tally->nulls += nulls;
      tally->unseen += unseen;
      next = row + 1 < stop ? span_of(c, w, row + 1) : none;
    }
  }
  if (tally->fault == DIN_FINE) flush(&p);
}

/* Whether a row is null: it may be no empty one, since dense values tell them apart. */
static int is_null_row(const din_column *c, int64_t row) {
  if (c->nesting == DIN_SCALAR) return !din_is_valid(&c->values, row);
  return c->validity != NULL && !din_bit(c->validity, row + c->offset);
}

static int repeats_row_before(const din_column *c, int64_t row) {
  if (row == 0) return 0;
  const int is_null = is_null_row(c, row);
  if (is_null != is_null_row(c, row - 1)) return 0;
  if (is_null) return 1;
  span one;
  span other;
  din_row_bounds_inline(c, row - 1, &one.first, &one.count);
  din_row_bounds_inline(c, row, &other.first, &other.count);
  if (one.count == 0 && other.count == 0) return 1;
  return is_same(c, one, other);
}

int64_t din_mark_repeats(const din_column *c, int64_t first, int64_t stop,
                         uint8_t *same) {
  int64_t count = 0;
  for (int64_t row = first; row < stop; ++row) {
    if (!same[row]) continue;
    same[row] = (uint8_t)repeats_row_before(c, row);
    count += same[row];
  }
  return count;
}

/* ---------------------------------------------------------------------- pad values */

static int is_pad(const din_column *c, const din_pad_value *pad, int64_t i) {
  const din_values *v = din_resolve(c, &i);
  if (v == NULL) {
    return 0;
  }
  if (pad->data != NULL) {
    din_key key = din_key_at(v, v->type, i);
    uint8_t text[DIN_UUID_LETTERS];
    if (v->type == DIN_UUID_TEXT) {
      din_format_uuid(key.data, text);
      key = (din_key){text, DIN_UUID_LETTERS};
    }
    const size_t size = (size_t)key.num_bytes;
    return key.num_bytes == pad->num_bytes && memcmp(key.data, pad->data, size) == 0;
  }
  int64_t number;
  uint8_t valid;
  int32_t fault = DIN_FINE;
  int64_t bad;
  const int masked = read_int64_block(v, i, 1, &number, &valid, NULL, &fault, &bad);
  return fault == DIN_FINE && (!masked || valid) && number == pad->number;
}

void din_trim_rows(const din_column *c, const din_pad_value *pad, int64_t *skip,
                   int64_t *kept) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    int64_t first = 0;
    while (first < count && is_pad(c, pad, start + first)) {
      ++first;
    }
    while (count > first && is_pad(c, pad, start + count - 1)) {
      --count;
    }
    skip[row] = first;
    kept[row] = count - first;
  }
}

void din_drop_pads(const din_column *c, const din_pad_value *pad,
                   const int64_t *lengths, const int64_t *position_start,
                   int64_t *positions, int64_t *kept) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t *out = positions + position_start[row];
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    kept[row] = 0;
    for (int64_t i = 0; i < count && i < lengths[row]; ++i) {
      if (!is_pad(c, pad, start + i)) {
        out[kept[row]++] = i;
      }
    }
  }
}

/* ------------------------------------------------------------------------- numbers */

/* Read n <= DIN_BLOCK numbers, dictionary or not; null as NaN. */
static void read_numbers(const din_column *c, int64_t start, int64_t n, double *out) {
  uint8_t valid[DIN_BLOCK];
  const din_values *v = &c->values;
  if (c->has_dictionary) {
    for (int64_t i = 0; i < n; ++i) {
      int64_t at = start + i;
      const din_values *entries = din_resolve(c, &at);
      out[i] = (double)NAN;
      if (entries != NULL) read_float64_block(entries, at, 1, out + i);
    }
    return;
  }
  read_float64_block(v, start, n, out);
  if (read_validity(v, start, n, valid)) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = valid[i] ? out[i] : (double)NAN;
    }
  }
}

/* Read n numbers from `start` on; null as NaN. */
static void read_all_numbers(const din_column *c, int64_t start, int64_t n,
                             double *out) {
  for (int64_t done = 0; done < n; done += DIN_BLOCK) {
    const int64_t left = n - done;
    read_numbers(c, start + done, left < DIN_BLOCK ? left : DIN_BLOCK, out + done);
  }
}

void din_read_elements_float64(const din_column *c, int64_t size, double *out) {
  if (c->nesting == DIN_SCALAR) {
    read_all_numbers(c, 0, size, out);
    return;
  }
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    if (count > size) count = size; /* than when they were counted */
    read_all_numbers(c, start, count, out);
    out += count;
    size -= count;
  }
  for (int64_t i = 0; i < size; ++i) out[i] = (double)NAN;
}

void din_read_scalars_int64(const din_column *c, int64_t first, int64_t *out,
                            uint8_t *valid, din_tally *tally) {
  for (int64_t row = first; row < c->num_rows; ++row) {
    int64_t i = row;
    const din_values *v = din_resolve(c, &i);
    out[row] = 0;
    valid[row] = 0;
    if (v == NULL) {
      continue;
    }
    int32_t fault = DIN_FINE;
    int64_t bad;
    uint8_t is_valid = 1;
    read_int64_block(v, i, 1, out + row, &is_valid, NULL, &fault, &bad);
    valid[row] = is_valid;
    if (!is_valid) out[row] = 0; /* of a null entry: anything */
    if (fault != DIN_FINE) {
      tally->fault = fault;
      tally->bad = tally->bad_row = row;
      return;
    }
  }
}

static float replaced(const din_scale *scale, int64_t k, double replacement) {
  if (scale != NULL) din_scale_values(scale, k, 1, &replacement);
  return (float)replacement;
}

void din_read_dense(const din_column *c, int64_t first, int64_t num_values,
                    int32_t replace, double replacement, const din_scale *scale,
                    const int64_t *weights, float *out, double *raw, din_tally *tally) {
  double numbers[DIN_BLOCK];
  for (int64_t row = first; row < c->num_rows; ++row) {
    const int64_t to = row * num_values;
    const int64_t weight = weights == NULL ? 1 : weights[row];
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    const int is_null =
        c->nesting == DIN_SCALAR
            ? c->values.type == DIN_NULL
            : c->validity != NULL && !din_bit(c->validity, row + c->offset);
    if (is_null) {
      tally->nulls += weight;
      for (int64_t k = 0; k < num_values; ++k) {
        if (raw != NULL) {
          raw[to + k] = (double)NAN;
        } else {
          out[to + k] = replaced(scale, k, replacement);
        }
      }
    } else if (count != num_values) {
      tally->fault = DIN_WRONG_COUNT;
      tally->bad = -1;
      tally->count = count;
      tally->bad_row = row;
      return;
    }
    if (is_null && !replace) {
      tally->fault = DIN_IS_MISSING;
      tally->bad = -1;
      tally->bad_row = row;
      return;
    }
    for (int64_t done = 0; !is_null && done < count; done += DIN_BLOCK) {
      const int64_t n = count - done < DIN_BLOCK ? count - done : DIN_BLOCK;
      if (raw != NULL) {
        read_numbers(c, start + done, n, raw + to + done);
        continue;
      }
      read_numbers(c, start + done, n, numbers);
      if (scale != NULL) din_scale_values(scale, done, n, numbers);
      for (int64_t k = 0; k < n; ++k) {
        /* The comparison is false for NaN; rounding to FLT_MAX's successor is inf. */
        const int is_finite = fabs(numbers[k]) < 3.4028235677973366e38;
        if (!is_finite && !replace) {
          tally->fault = DIN_IS_MISSING;
          tally->bad = start + done + k;
          tally->bad_row = row;
          return;
        }
        tally->nulls += is_finite ? 0 : weight;
        out[to + done + k] =
            is_finite ? (float)numbers[k] : replaced(scale, done + k, replacement);
      }
    }
  }
}
