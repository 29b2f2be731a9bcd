#include "column.h"

#include <assert.h>

#include "block.h"
#include "column_inline.h"

int64_t din_check_rows(const din_column *c, int64_t *first, int64_t *stop) {
  const int64_t limit = c->values.length;
  *first = 0;
  *stop = 0;
  if (c->nesting == DIN_SCALAR) {
    *stop = c->num_rows;
    return c->num_rows <= limit ? -1 : limit;
  }
  if (c->nesting == DIN_FIXED_LIST) {
    if (c->list_size == 0 || c->num_rows == 0) {
      return -1;
    }
    const int64_t inside = limit / c->list_size - c->offset;
    if (inside < c->num_rows) {
      return inside > 0 ? inside : 0;
    }
    *first = c->offset * c->list_size;
    *stop = (c->offset + c->num_rows) * c->list_size;
    return -1;
  }
  const int is_view = c->nesting == DIN_LIST_VIEW32 || c->nesting == DIN_LIST_VIEW64;
  const int is_wide = c->nesting == DIN_LIST64 || c->nesting == DIN_LIST_VIEW64;
  int64_t low = INT64_MAX;
  int64_t high = 0;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    const int64_t at = row + c->offset;
    if (is_view && c->validity != NULL && !din_bit(c->validity, at)) {
      continue; /* a null view may say anything; a null list may not */
    }
    const int64_t start =
        is_wide ? din_read_i64(c->offsets, at) : (int64_t)din_read_i32(c->offsets, at);
    int64_t end;
    if (is_view) {
      const int64_t size =
          is_wide ? din_read_i64(c->sizes, at) : (int64_t)din_read_i32(c->sizes, at);
      if (!din_lies_within(start, size, limit)) {
        return row;
      }
      end = start + size;
    } else {
      end = is_wide ? din_read_i64(c->offsets, at + 1)
                    : (int64_t)din_read_i32(c->offsets, at + 1);
      if (start < 0 || end < start || end > limit) {
        return row;
      }
    }
    low = start < low ? start : low;
    high = end > high ? end : high;
  }
  *first = low <= high ? low : high;
  *stop = high;
  return -1;
}

static int64_t check_views(const din_values *v, int64_t first, int64_t stop) {
  /* Short ones point nowhere. */
  uint32_t longest = 0;
  for (int64_t i = first; i < stop; ++i) {
    const uint32_t size = din_read_ui32(v->data, (i + v->offset) * 4);
    longest = size > longest ? size : longest;
  }
  if (longest <= DIN_VIEW_INLINE) {
    return -1;
  }
  for (int64_t i = first; i < stop; ++i) {
    if (din_is_valid(v, i) && din_read_view(v, i).data == NULL) {
      return i;
    }
  }
  return -1;
}

static int64_t offset_at(const din_values *v, int64_t i) {
  return v->type == DIN_BYTES64 ? din_read_i64(v->data, i + v->offset)
                                : (int64_t)din_read_i32(v->data, i + v->offset);
}

int64_t din_check_values(din_values *v, int64_t first, int64_t stop,
                         const din_block_isa *isa) {
  assert(0 <= first && first <= stop && stop <= v->length);
  if (first == stop) {
    return -1;
  }
  if (v->type == DIN_BYTES_VIEW) {
    return check_views(v, first, stop);
  }
  if (v->type != DIN_BYTES32 && v->type != DIN_BYTES64) {
    return -1;
  }
  /* The bytes' size is unknown, but no bytes at all is known. */
  const int64_t end = offset_at(v, stop);
  if (v->bytes != NULL && end > v->num_bytes) v->num_bytes = end;
  const int has_bytes = v->bytes != NULL || offset_at(v, first) == offset_at(v, stop);
  if (offset_at(v, first) >= 0 && has_bytes) {
    const int is_wide = v->type == DIN_BYTES64;
    const uint8_t *offsets = v->data;
    offsets += (first + v->offset) * (is_wide ? 8 : 4);
    if (isa->rise[is_wide](offsets, stop - first)) return -1;
  }
  int64_t previous = 0;
  for (int64_t i = first; i <= stop; ++i) {
    const int64_t here = offset_at(v, i);
    if (here < previous || (v->bytes == NULL && i > first && here > previous)) {
      return i > first ? i - 1 : i;
    }
    previous = here;
  }
  return first; /* not reached */
}

/*
 * Whether all of some indices, nulls too, lie in [0, length): negative ones, read as
 * unsigned, are beyond half of what their bits hold, which `length` may be, too.
 */
static int are_inside(const din_values *v, int64_t first, int64_t n, int64_t length,
                      const din_block_isa *isa) {
  const int k = (v->type - DIN_INT8) % 4; /* of 8 << k bits */
  const uint8_t *data = v->data;
  uint64_t end = (uint64_t)length;
  if (v->type <= DIN_INT64) {
    const uint64_t negative = UINT64_C(1) << ((8 << k) - 1);
    end = end < negative ? end : negative;
  }
  return isa->highest[k](data + ((first + v->offset) << k), n) < end;
}

int64_t din_check_indices(din_column *c, int64_t first, int64_t stop,
                          const din_block_isa *isa) {
  din_values *dictionary = &c->dictionary;
  const int whole = dictionary->length <= stop - first;
  if (whole && stop > first) {
    const int64_t bad = din_check_values(dictionary, 0, dictionary->length, isa);
    if (bad >= 0) {
      return first;
    }
  }
  if (whole && stop > first &&
      are_inside(&c->values, first, stop - first, dictionary->length, isa)) {
    return -1;
  }
  for (int64_t i = first; i < stop; ++i) {
    if (!din_is_valid(&c->values, i)) {
      continue;
    }
    const int64_t index = din_index_at(&c->values, i);
    if (index < 0 || index >= dictionary->length) {
      return i;
    }
    if (!whole && din_check_values(dictionary, index, index + 1, isa) >= 0) {
      return i;
    }
  }
  return -1;
}

void din_row_bounds(const din_column *column, int64_t row, int64_t *start,
                    int64_t *count) {
  din_row_bounds_inline(column, row, start, count);
}

void din_row_lengths(const din_column *c, int64_t *lengths) {
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t start;
    din_row_bounds_inline(c, row, &start, &lengths[row]);
  }
}

static int is_present(const din_column *c, int64_t i) {
  const din_values *v = din_resolve(c, &i);
  if (v == NULL) {
    return 0;
  }
  const int64_t at = i + v->offset;
  switch (v->type) {
    case DIN_FLOAT16: {
      const double x = din_read_f16(v->data, at);
      return x == x;
    }
    case DIN_FLOAT32: {
      const float x = din_read_f32(v->data, at);
      return x == x;
    }
    case DIN_FLOAT64: {
      const double x = din_read_f64(v->data, at);
      return x == x;
    }
    default:
      return 1;
  }
}

int64_t din_count_valid(const din_column *c, int64_t first, int64_t stop) {
  int64_t count = 0;
  for (int64_t i = first; i < stop; ++i) {
    count += is_present(c, i);
  }
  return count;
}

int64_t din_count_valid_rows(const din_column *c) {
  if (c->nesting == DIN_SCALAR) {
    return din_count_valid(c, 0, c->num_rows);
  }
  int64_t count = 0;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    count += c->validity == NULL || din_bit(c->validity, row + c->offset);
  }
  return count;
}
