/* Above 400 lines: a pass per encoder over every column type, sharing inlines. */
#include "encode.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "column_inline.h"
#include "hash_inline.h"

/* Elements read at a time: they stay in the first-level cache. */
enum { BLOCK = 64 };

/* Integers below these are exact in the float type; from here on neighbors collapse. */
static const double EXACT_F16 = 2048.0;
static const double EXACT_F32 = 16777216.0;
static const double EXACT_F64 = 9007199254740992.0;

/* What a run of elements met; element numbers count from the run's first. */
typedef struct {
  int64_t nulls;
  int64_t unseen;
  int64_t bad;
  int32_t fault;
} run_tally;

/* ------------------------------------------------------------------ reading numbers */

#define READ_LOOP(type, read)             \
  for (int64_t i = 0; i < n; ++i) {       \
    out[i] = (type)read(v->data, at + i); \
  }                                       \
  break

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
  for (int64_t i = 0; i < n; ++i) {
    valid[i] = (uint8_t)din_bit(v->validity, first + v->offset + i);
  }
  return 1;
}

static void read_float64_block(const din_values *v, int64_t first, int64_t n,
                               double *out) {
  const int64_t at = first + v->offset;
  switch (v->type) {
    case DIN_BOOL:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = din_bit((const uint8_t *)v->data, at + i);
      }
      break;
    case DIN_INT8:
      READ_LOOP(double, din_read_i8);
    case DIN_INT16:
      READ_LOOP(double, din_read_i16);
    case DIN_INT32:
      READ_LOOP(double, din_read_i32);
    case DIN_INT64:
      READ_LOOP(double, din_read_i64);
    case DIN_UINT8:
      READ_LOOP(double, din_read_ui8);
    case DIN_UINT16:
      READ_LOOP(double, din_read_ui16);
    case DIN_UINT32:
      READ_LOOP(double, din_read_ui32);
    case DIN_UINT64:
      READ_LOOP(double, din_read_ui64);
    case DIN_FLOAT16:
      READ_LOOP(double, din_read_f16);
    case DIN_FLOAT32:
      READ_LOOP(double, din_read_f32);
    case DIN_FLOAT64:
      READ_LOOP(double, din_read_f64);
    default:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = (double)NAN;
      }
      break;
  }
}

/*
 * Read numbers as int64; returns whether valid[n] was written (else all are valid).
 * A float NaN is null. On a fault, entries before `bad` are good.
 */
static int read_int64_block(const din_values *v, int64_t first, int64_t n, int64_t *out,
                            uint8_t *valid, run_tally *run) {
  const int64_t at = first + v->offset;
  int masked = read_validity(v, first, n, valid);
  switch (v->type) {
    case DIN_BOOL:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = din_bit((const uint8_t *)v->data, at + i);
      }
      break;
    case DIN_INT8:
      READ_LOOP(int64_t, din_read_i8);
    case DIN_INT16:
      READ_LOOP(int64_t, din_read_i16);
    case DIN_INT32:
      READ_LOOP(int64_t, din_read_i32);
    case DIN_INT64:
      memcpy(out, (const uint8_t *)v->data + at * 8, (size_t)n * sizeof *out);
      break;
    case DIN_UINT8:
      READ_LOOP(int64_t, din_read_ui8);
    case DIN_UINT16:
      READ_LOOP(int64_t, din_read_ui16);
    case DIN_UINT32:
      READ_LOOP(int64_t, din_read_ui32);
    case DIN_UINT64:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = din_read_i64(v->data, at + i);
        if (out[i] < 0 && (!masked || valid[i])) {
          run->fault = DIN_BEYOND_INT64;
          run->bad = i;
          return masked;
        }
      }
      break;
    case DIN_FLOAT16:
    case DIN_FLOAT32:
    case DIN_FLOAT64: {
      const double exact = v->type == DIN_FLOAT64   ? EXACT_F64
                           : v->type == DIN_FLOAT32 ? EXACT_F32
                                                    : EXACT_F16;
      double numbers[BLOCK];
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
          run->fault = is_whole ? DIN_NOT_EXACT : DIN_NOT_WHOLE;
          run->bad = i;
          return masked;
        }
      }
      break;
    }
    default:
      memset(out, 0, (size_t)n * sizeof *out);
      break;
  }
  return masked;
}

/* ------------------------------------------------------------------------- encoding */

/* Returns the id of an unseen value, or -1 where it has none. */
static int64_t unseen_id(const din_encoder *e, run_tally *run) {
  if (e->unseen == DIN_UNSEEN_ERROR) {
    return -1;
  }
  run->unseen += 1;
  return e->unseen == DIN_UNSEEN_ROW ? e->num_rows - 1 : 0;
}

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

/* valid may be NULL: all are. Returns the entries written before a fault. */
static int64_t encode_ints(const din_encoder *e, const int64_t *x, const uint8_t *valid,
                           int64_t n, int64_t *out, run_tally *run) {
  if (e->type == DIN_ENCODE_HASH) {
    if (e->int_as_text) {
      for (int64_t i = 0; i < n; ++i) {
        out[i] =
            din_reduce_inline(din_hash_int64_text_inline(x[i], e->seed), &e->reduction);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) {
        out[i] = din_reduce_inline(din_hash_int64_inline(x[i], e->seed), &e->reduction);
      }
    }
    for (int64_t i = 0; valid != NULL && i < n; ++i) {
      if (!valid[i]) {
        out[i] = 0;
        run->nulls += 1;
      }
    }
    return n;
  }
  for (int64_t i = 0; i < n; ++i) {
    if (valid != NULL && !valid[i]) {
      out[i] = 0;
      run->nulls += 1;
      continue;
    }
    int64_t id;
    int is_seen = 1;
    if (e->type == DIN_ENCODE_IDENTITY) {
      id = x[i];
      is_seen = id >= 0 && id < e->num_rows;
    } else if (e->type == DIN_ENCODE_VOCAB) {
      id = din_find_int64(&e->vocab, x[i]);
      is_seen = id != 0;
    } else {
      id = bucket_of(e, (double)x[i]);
    }
    if (!is_seen) {
      id = unseen_id(e, run);
      if (id < 0) {
        run->fault = DIN_HAS_NO_ID;
        run->bad = i;
        return i;
      }
    }
    out[i] = id;
  }
  return n;
}

static void encode_ints_run(const din_values *v, const din_encoder *e, int64_t start,
                            int64_t count, int64_t *out, run_tally *run) {
  int64_t keys[BLOCK];
  uint8_t valid[BLOCK];
  for (int64_t done = 0; done < count; done += BLOCK) {
    const int64_t n = count - done < BLOCK ? count - done : BLOCK;
    run_tally block = {0, 0, -1, DIN_FINE};
    const int masked = read_int64_block(v, start + done, n, keys, valid, &block);
    if (block.fault != DIN_FINE) {
      /* An earlier element of the block may have no id, and is then the first fault. */
      run_tally before = {0, 0, -1, DIN_FINE};
      encode_ints(e, keys, masked ? valid : NULL, block.bad, out + done, &before);
      if (before.fault != DIN_FINE) {
        block = before;
      }
    } else {
      encode_ints(e, keys, masked ? valid : NULL, n, out + done, &block);
    }
    run->nulls += block.nulls;
    run->unseen += block.unseen;
    if (block.fault != DIN_FINE) {
      run->fault = block.fault;
      run->bad = done + block.bad;
      return;
    }
  }
}

static void encode_floats_run(const din_values *v, const din_encoder *e, int64_t start,
                              int64_t count, int64_t *out, run_tally *run) {
  double numbers[BLOCK];
  uint8_t valid[BLOCK];
  for (int64_t done = 0; done < count; done += BLOCK) {
    const int64_t n = count - done < BLOCK ? count - done : BLOCK;
    read_float64_block(v, start + done, n, numbers);
    const int masked = read_validity(v, start + done, n, valid);
    for (int64_t i = 0; i < n; ++i) {
      if ((masked && !valid[i]) || numbers[i] != numbers[i]) {
        out[done + i] = 0;
        run->nulls += 1;
      } else {
        out[done + i] = bucket_of(e, numbers[i]);
      }
    }
  }
}

static inline void hash_keys(const din_values *v, int32_t type, const din_encoder *e,
                             int64_t start, int64_t count, int64_t *out,
                             run_tally *run) {
  const uint64_t seed = e->seed;
  const din_reduction reduction = e->reduction;
  if (v->validity == NULL) {
    for (int64_t i = 0; i < count; ++i) {
      const din_key key = din_key_at(v, type, start + i);
      const uint64_t h = din_hash_bytes_inline(key.data, key.num_bytes, seed);
      out[i] = din_reduce_inline(h, &reduction);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (!din_bit(v->validity, start + v->offset + i)) {
      out[i] = 0;
      run->nulls += 1;
      continue;
    }
    const din_key key = din_key_at(v, type, start + i);
    const uint64_t h = din_hash_bytes_inline(key.data, key.num_bytes, seed);
    out[i] = din_reduce_inline(h, &reduction);
  }
}

static void find_keys(const din_values *v, const din_encoder *e, int64_t start,
                      int64_t count, int64_t *out, run_tally *run) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = 0;
    if (!din_is_valid(v, start + i)) {
      run->nulls += 1;
      continue;
    }
    const din_key key = din_key_at(v, v->type, start + i);
    int64_t id = din_find_bytes(&e->vocab, key.data, key.num_bytes);
    if (id == 0) {
      id = unseen_id(e, run);
    }
    if (id < 0) {
      run->fault = DIN_HAS_NO_ID;
      run->bad = i;
      return;
    }
    out[i] = id;
  }
}

static void encode_keys_run(const din_values *v, const din_encoder *e, int64_t start,
                            int64_t count, int64_t *out, run_tally *run) {
  if (e->type == DIN_ENCODE_VOCAB) {
    find_keys(v, e, start, count, out, run);
    return;
  }
  switch (v->type) {
    case DIN_BYTES32:
      hash_keys(v, DIN_BYTES32, e, start, count, out, run);
      break;
    case DIN_BYTES64:
      hash_keys(v, DIN_BYTES64, e, start, count, out, run);
      break;
    case DIN_BYTES_FIXED:
      hash_keys(v, DIN_BYTES_FIXED, e, start, count, out, run);
      break;
    default:
      hash_keys(v, DIN_BYTES_VIEW, e, start, count, out, run);
      break;
  }
}

static void encode_plain_run(const din_values *v, const din_encoder *e, int64_t start,
                             int64_t count, int64_t *out, run_tally *run) {
  if (v->type == DIN_NULL) {
    memset(out, 0, (size_t)count * sizeof *out);
    run->nulls += count;
  } else if (e->reads == DIN_READS_BYTES) {
    encode_keys_run(v, e, start, count, out, run);
  } else if (e->reads == DIN_READS_INT64) {
    encode_ints_run(v, e, start, count, out, run);
  } else {
    encode_floats_run(v, e, start, count, out, run);
  }
}

static void encode_coded_run(const din_column *c, const din_encoder *e,
                             const din_codes *codes, int64_t start, int64_t count,
                             int64_t *out, run_tally *run) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = 0;
    if (!din_is_valid(&c->values, start + i)) {
      run->nulls += 1;
      continue;
    }
    const int64_t index = din_index_at(&c->values, start + i);
    if (codes != NULL && codes->codes[index] != DIN_CODE_FAULT) {
      out[i] = codes->ids[index];
      run->nulls += codes->codes[index] == DIN_CODE_NULL;
      run->unseen += codes->codes[index] == DIN_CODE_UNSEEN;
      continue;
    }
    run_tally one = {0, 0, -1, DIN_FINE};
    encode_plain_run(&c->dictionary, e, index, 1, out + i, &one);
    run->nulls += one.nulls;
    run->unseen += one.unseen;
    if (one.fault != DIN_FINE) {
      run->fault = one.fault;
      run->bad = i;
      return;
    }
  }
}

static void encode_run(const din_column *c, const din_encoder *e,
                       const din_codes *codes, int64_t start, int64_t count,
                       int64_t *out, run_tally *run) {
  if (c->has_dictionary) {
    encode_coded_run(c, e, codes, start, count, out, run);
  } else {
    encode_plain_run(&c->values, e, start, count, out, run);
  }
}

void din_encode_dictionary(const din_column *c, const din_encoder *e, int64_t *ids,
                           uint8_t *codes) {
  for (int64_t i = 0; i < c->dictionary.length; ++i) {
    run_tally one = {0, 0, -1, DIN_FINE};
    ids[i] = 0;
    encode_plain_run(&c->dictionary, e, i, 1, ids + i, &one);
    codes[i] = one.fault != DIN_FINE ? DIN_CODE_FAULT
               : one.nulls           ? DIN_CODE_NULL
               : one.unseen          ? DIN_CODE_UNSEEN
                                     : DIN_CODE_ID;
  }
}

void din_encode_scalars(const din_column *c, const din_encoder *e,
                        const din_codes *codes, int64_t *ids, din_tally *tally) {
  run_tally run = {0, 0, -1, DIN_FINE};
  encode_run(c, e, codes, 0, c->num_rows, ids, &run);
  tally->nulls += run.nulls;
  tally->unseen += run.unseen;
  tally->fault = run.fault;
  tally->bad = run.bad;
  tally->bad_row = run.bad;
}

static void reverse(int64_t *x, int64_t n) {
  for (int64_t i = 0, j = n - 1; i < j; ++i, --j) {
    const int64_t swapped = x[i];
    x[i] = x[j];
    x[j] = swapped;
  }
}

void din_encode_lists(const din_column *c, const din_encoder *e, const din_codes *codes,
                      const din_window *w, int64_t *padded, din_tally *tally) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t *out = padded + row * w->width;
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    if (w->skip != NULL) {
      start += w->skip[row];
    }
    if (w->kept != NULL) {
      count = w->kept[row];
    }
    int64_t kept = count;
    int64_t first = 0;
    if (count > w->width) {
      kept = w->width;
      first = w->newest_first ? 0 : count - kept;
    }
    run_tally run = {0, 0, -1, DIN_FINE};
    if (w->positions == NULL) {
      encode_run(c, e, codes, start + first, kept, out, &run);
      tally->bad = start + first + run.bad;
    } else {
      const int64_t *positions = w->positions + w->position_start[row] + first;
      for (int64_t t = 0; t < kept && run.fault == DIN_FINE; ++t) {
        encode_run(c, e, codes, start + positions[t], 1, out + t, &run);
        tally->bad = start + positions[t];
      }
    }
    tally->nulls += run.nulls;
    tally->unseen += run.unseen;
    if (run.fault != DIN_FINE) {
      tally->fault = run.fault;
      tally->bad_row = row;
      return;
    }
    if (w->newest_first) {
      reverse(out, kept);
    }
    if (w->width > kept) {
      memset(out + kept, 0, (size_t)(w->width - kept) * sizeof *out);
    }
  }
}

/* ------------------------------------------------------------------------ pad values
 */

static int is_pad(const din_column *c, const din_pad_value *pad, int64_t i) {
  const din_values *v = &c->values;
  if (!din_is_valid(v, i)) {
    return 0;
  }
  if (c->has_dictionary) {
    i = din_index_at(v, i);
    v = &c->dictionary;
    if (!din_is_valid(v, i)) {
      return 0;
    }
  }
  if (pad->data != NULL) {
    const din_key key = din_key_at(v, v->type, i);
    const size_t size = (size_t)key.num_bytes;
    return key.num_bytes == pad->num_bytes && memcmp(key.data, pad->data, size) == 0;
  }
  int64_t number;
  uint8_t valid;
  run_tally run = {0, 0, -1, DIN_FINE};
  const int masked = read_int64_block(v, i, 1, &number, &valid, &run);
  return run.fault == DIN_FINE && (!masked || valid) && number == pad->number;
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
                   const int64_t *position_start, int64_t *positions, int64_t *kept) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t *out = positions + position_start[row];
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    kept[row] = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (!is_pad(c, pad, start + i)) {
        out[kept[row]++] = i;
      }
    }
  }
}

/* --------------------------------------------------------------------------- numbers
 */

/* Read n <= BLOCK numbers, dictionary or not; null as NaN. */
static void read_numbers(const din_column *c, int64_t start, int64_t n, double *out) {
  uint8_t valid[BLOCK];
  const din_values *v = &c->values;
  if (c->has_dictionary) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = (double)NAN;
      if (din_is_valid(v, start + i)) {
        const int64_t index = din_index_at(v, start + i);
        if (din_is_valid(&c->dictionary, index)) {
          read_float64_block(&c->dictionary, index, 1, out + i);
        }
      }
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

void din_read_scalars_float64(const din_column *c, double *out) {
  for (int64_t done = 0; done < c->num_rows; done += BLOCK) {
    const int64_t left = c->num_rows - done;
    read_numbers(c, done, left < BLOCK ? left : BLOCK, out + done);
  }
}

void din_read_scalars_int64(const din_column *c, int64_t *out, uint8_t *valid,
                            din_tally *tally) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    const din_values *v = &c->values;
    int64_t i = row;
    out[row] = 0;
    valid[row] = 0;
    if (!din_is_valid(v, i)) {
      continue;
    }
    if (c->has_dictionary) {
      i = din_index_at(v, i);
      v = &c->dictionary;
    }
    run_tally run = {0, 0, -1, DIN_FINE};
    uint8_t is_valid = 1;
    if (!read_int64_block(v, i, 1, out + row, &is_valid, &run)) {
      is_valid = 1;
    }
    valid[row] = is_valid;
    if (run.fault != DIN_FINE) {
      tally->fault = run.fault;
      tally->bad = tally->bad_row = row;
      return;
    }
  }
}

void din_read_dense(const din_column *c, int64_t num_values, int32_t replace,
                    float replacement, float *out, din_tally *tally) {
  double numbers[BLOCK];
  for (int64_t row = 0; row < c->num_rows; ++row) {
    float *to = out + row * num_values;
    int64_t start;
    int64_t count;
    din_row_bounds_inline(c, row, &start, &count);
    const int is_null =
        c->nesting == DIN_SCALAR
            ? c->values.type == DIN_NULL
            : c->validity != NULL && !din_bit(c->validity, row + c->offset);
    if (is_null) {
      tally->nulls += 1;
      for (int64_t k = 0; k < num_values; ++k) {
        to[k] = replacement;
      }
    } else if (count != num_values) {
      tally->fault = DIN_WRONG_COUNT;
      tally->bad = count;
      tally->bad_row = row;
      return;
    }
    if (is_null && !replace) {
      tally->fault = DIN_IS_MISSING;
      tally->bad = -1;
      tally->bad_row = row;
      return;
    }
    for (int64_t done = 0; !is_null && done < count; done += BLOCK) {
      const int64_t n = count - done < BLOCK ? count - done : BLOCK;
      read_numbers(c, start + done, n, numbers);
      for (int64_t k = 0; k < n; ++k) {
        /* The comparison is false for NaN; rounding to FLT_MAX's successor is inf. */
        const int is_finite = fabs(numbers[k]) < 3.4028235677973366e38;
        if (!is_finite && !replace) {
          tally->fault = DIN_IS_MISSING;
          tally->bad = start + done + k;
          tally->bad_row = row;
          return;
        }
        tally->nulls += !is_finite;
        to[done + k] = is_finite ? (float)numbers[k] : replacement;
      }
    }
  }
}
