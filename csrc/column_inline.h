/* Reading single elements of a column view, for loops that need it inlined. */
#ifndef DIN_COLUMN_INLINE_H
#define DIN_COLUMN_INLINE_H

#include <stdint.h>
#include <string.h>

#include "column.h"

/* memcpy, because Arrow only recommends alignment. */
#define DIN_DEFINE_READ(name, ctype)                                       \
  static inline ctype name(const void *buffer, int64_t i) {                \
    ctype v;                                                               \
    memcpy(&v, (const uint8_t *)buffer + i * (int64_t)sizeof v, sizeof v); \
    return v;                                                              \
  }
DIN_DEFINE_READ(din_read_i8, int8_t)
DIN_DEFINE_READ(din_read_i16, int16_t)
DIN_DEFINE_READ(din_read_i32, int32_t)
DIN_DEFINE_READ(din_read_i64, int64_t)
DIN_DEFINE_READ(din_read_ui8, uint8_t)
DIN_DEFINE_READ(din_read_ui16, uint16_t)
DIN_DEFINE_READ(din_read_ui32, uint32_t)
DIN_DEFINE_READ(din_read_ui64, uint64_t)
DIN_DEFINE_READ(din_read_f32, float)
DIN_DEFINE_READ(din_read_f64, double)
#undef DIN_DEFINE_READ

static inline int din_bit(const void *bitmap, int64_t i) {
  return (((const uint8_t *)bitmap)[i >> 3] >> (i & 7)) & 1;
}

static inline int din_read_bool8(const void *buffer, int64_t i) {
  return din_read_ui8(buffer, i) != 0;
}

static inline int din_is_valid(const din_values *v, int64_t i) {
  return v->type != DIN_NULL &&
         (v->validity == NULL || din_bit(v->validity, i + v->offset));
}

static inline double din_read_f16(const void *buffer, int64_t i) {
  const uint32_t half = din_read_ui16(buffer, i);
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t fraction = half & 1023;
  const uint32_t sign = (half & 0x8000u) << 16;
  if (exponent == 0) {
    const double magnitude = (double)fraction / 16777216.0;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  const uint32_t bits = sign | (wide << 23) | (fraction << 13);
  float value;
  memcpy(&value, &bits, sizeof value);
  return (double)value;
}

typedef struct {
  const uint8_t *data;
  int64_t num_bytes;
} din_key;

/* Write a UUID's canonical text: 8-4-4-4-12 lower-case hexadecimal digits. */
static inline void din_format_uuid(const uint8_t *uuid, uint8_t *text) {
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < DIN_UUID_BYTES; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *text++ = '-';
    *text++ = (uint8_t)digits[uuid[i] >> 4];
    *text++ = (uint8_t)digits[uuid[i] & 15];
  }
}

/* Whether [begin, begin + size) lies in [0, limit]. */
static inline int din_lies_within(int64_t begin, int64_t size, int64_t limit) {
  return begin >= 0 && size >= 0 && size <= limit && begin <= limit - size;
}

/* Where the bytes of a view lie; no data if that is not inside a buffer. */
static inline din_key din_read_view(const din_values *v, int64_t i) {
  const din_key none = {NULL, 0};
  const uint8_t *view = (const uint8_t *)v->data + (i + v->offset) * 16;
  const int64_t size = din_read_i32(view, 0);
  if (size >= 0 && size <= DIN_VIEW_INLINE) return (din_key){view + 4, size};
  const int64_t buffer = din_read_i32(view, 2), begin = din_read_i32(view, 3);
  if (buffer < 0 || buffer >= v->num_buffers || v->buffers[buffer] == NULL ||
      !din_lies_within(begin, size, din_read_i64(v->buffer_sizes, buffer))) {
    return none;
  }
  return (din_key){(const uint8_t *)v->buffers[buffer] + begin, size};
}

/*
 * `type` is values->type, apart so that callers can make it a constant. The key of a
 * DIN_UUID_TEXT is its 16 bytes.
 */
static inline din_key din_key_at(const din_values *v, int32_t type, int64_t i) {
  static const uint8_t empty[1] = {0};
  const int64_t at = i + v->offset;
  din_key key = {empty, 0};
  int64_t begin = 0, end = 0;
  switch (type) {
    case DIN_BYTES32:
      begin = din_read_i32(v->data, at);
      end = din_read_i32(v->data, at + 1);
      break;
    case DIN_BYTES64:
      begin = din_read_i64(v->data, at);
      end = din_read_i64(v->data, at + 1);
      break;
    case DIN_BYTES_FIXED:
    case DIN_UUID_TEXT:
      key.num_bytes = type == DIN_UUID_TEXT ? DIN_UUID_BYTES : v->width;
      key.data = (const uint8_t *)v->data + at * key.num_bytes;
      return key;
    default: {
      const din_key found = din_read_view(v, i);
      return found.data == NULL ? key : found;
    }
  }
  if (begin >= 0 && end > begin && end <= v->num_bytes) {
    key = (din_key){v->bytes + begin, end - begin};
  }
  return key;
}

/* Whether a key is the text of a UUID; `in_capitals`: with a letter in upper case. */
static inline int din_is_uuid_text(din_key key, int in_capitals) {
  int has_capital = 0;
  if (key.num_bytes != DIN_UUID_LETTERS) return 0;
  for (int i = 0; i < DIN_UUID_LETTERS; ++i) {
    const uint8_t letter = key.data[i];
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (letter != '-') return 0;
      continue;
    }
    const int is_capital = letter >= 'A' && letter <= 'F';
    has_capital |= is_capital;
    if (!is_capital && !(letter >= '0' && letter <= '9') &&
        !(letter >= 'a' && letter <= 'f')) {
      return 0;
    }
  }
  return has_capital || !in_capitals;
}

/* @pre the values are of an integer type */
static inline int64_t din_index_at(const din_values *v, int64_t i) {
  const int64_t at = i + v->offset;
  switch (v->type) {
    case DIN_INT8:
      return din_read_i8(v->data, at);
    case DIN_INT16:
      return din_read_i16(v->data, at);
    case DIN_INT32:
      return din_read_i32(v->data, at);
    case DIN_UINT8:
      return din_read_ui8(v->data, at);
    case DIN_UINT16:
      return din_read_ui16(v->data, at);
    case DIN_UINT32:
      return din_read_ui32(v->data, at);
    default: /* an uint64 beyond int64 reads as negative: outside any dictionary */
      return din_read_i64(v->data, at);
  }
}

/* The values in which element *i of a column lies, *i of them; NULL where it is null. */
static inline const din_values *din_resolve(const din_column *c, int64_t *i) {
  const din_values *v = &c->values;
  if (!din_is_valid(v, *i)) return NULL;
  if (!c->has_dictionary) return v;
  *i = din_index_at(v, *i);
  v = &c->dictionary;
  return *i >= 0 && *i < v->length && din_is_valid(v, *i) ? v : NULL;
}

#define DIN_READ_LOOP(read)         \
  for (int64_t i = 0; i < n; ++i) { \
    out[i] = read(v->data, at + i); \
  }                                 \
  break

/* Read n integers as they are; an uint64 beyond int64 reads as negative. */
static inline void din_read_integers(const din_values *v, int64_t first, int64_t n,
                                     int64_t *out) {
  const int64_t at = first + v->offset;
  switch (v->type) {
    case DIN_BOOL:
      DIN_READ_LOOP(din_bit);
    case DIN_BOOL8:
      DIN_READ_LOOP(din_read_bool8);
    case DIN_INT8:
      DIN_READ_LOOP(din_read_i8);
    case DIN_INT16:
      DIN_READ_LOOP(din_read_i16);
    case DIN_INT32:
      DIN_READ_LOOP(din_read_i32);
    case DIN_UINT8:
      DIN_READ_LOOP(din_read_ui8);
    case DIN_UINT16:
      DIN_READ_LOOP(din_read_ui16);
    case DIN_UINT32:
      DIN_READ_LOOP(din_read_ui32);
    default:
      DIN_READ_LOOP(din_read_i64);
  }
}

static inline void din_row_bounds_inline(const din_column *c, int64_t row,
                                         int64_t *start, int64_t *count) {
  const int64_t at = row + c->offset;
  *start = 0;
  *count = 0;
  if (c->nesting == DIN_SCALAR) {
    *start = row;
    *count = c->values.type != DIN_NULL;
    return;
  }
  if (c->validity != NULL && !din_bit(c->validity, at)) {
    return;
  }
  switch (c->nesting) {
    case DIN_LIST32:
      *start = din_read_i32(c->offsets, at);
      *count = din_read_i32(c->offsets, at + 1) - *start;
      break;
    case DIN_LIST64:
      *start = din_read_i64(c->offsets, at);
      *count = din_read_i64(c->offsets, at + 1) - *start;
      break;
    case DIN_LIST_VIEW32:
      *start = din_read_i32(c->offsets, at);
      *count = din_read_i32(c->sizes, at);
      break;
    case DIN_LIST_VIEW64:
      *start = din_read_i64(c->offsets, at);
      *count = din_read_i64(c->sizes, at);
      break;
    default:
      *start = at * c->list_size;
      *count = c->list_size;
      return;
  }
  if (!din_lies_within(*start, *count, c->values.length)) *start = *count = 0;
}

#endif /* DIN_COLUMN_INLINE_H */
