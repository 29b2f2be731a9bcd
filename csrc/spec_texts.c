/* Lists that are written as text: din_infer/list_texts.py without Python. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "spec.h"

/* The lists on their way; all arrays in one block of memory. */
typedef struct {
  int64_t *offsets; /* [R + 1] */
  uint8_t *row_valid;
  uint8_t *valid;
  int64_t *numbers; /* int64, bits of a double, or, for texts, where they end */
  uint8_t *text;
  int64_t count, text_bytes;
  int32_t reads;
} lists;

static void set(uint8_t *bits, int64_t i) { bits[i >> 3] |= (uint8_t)(1 << (i & 7)); }

static const uint8_t *find(const uint8_t *data, const uint8_t *stop, din_key sign) {
  const size_t size = (size_t)sign.num_bytes;
  while ((size_t)(stop - data) >= size) {
    const uint8_t *found = memchr(data, sign.data[0], (size_t)(stop - data) - size + 1);
    if (found == NULL) return stop;
    if (memcmp(found, sign.data, size) == 0) return found;
    data = found + 1;
  }
  return stop;
}

/* The text of a row; no data where it is null. */
static din_key text_of(const din_column *c, int64_t row) {
  const din_key none = {NULL, 0};
  const din_values *v = din_resolve(c, &row);
  return v == NULL ? none : din_key_at(v, v->type, row);
}

static din_key strip(din_key key) {
#define IS_BLANK(c) ((c) == ' ' || ((c) >= 9 && (c) <= 13) || ((c) >= 28 && (c) <= 31))
  while (key.num_bytes > 0 && IS_BLANK(key.data[0])) ++key.data, --key.num_bytes;
  while (key.num_bytes > 0 && IS_BLANK(key.data[key.num_bytes - 1])) --key.num_bytes;
#undef IS_BLANK
  return key;
}

static int is_word(din_key key, const char *word) {
  return key.num_bytes == (int64_t)strlen(word) &&
         memcmp(key.data, word, strlen(word)) == 0;
}

/* A number's sign, digits without leading zeros, and its power of ten. */
typedef struct {
  int is_negative;
  int64_t num_digits; /* of all of them */
  int64_t num_kept;   /* up to the last that is not 0 */
  int64_t exponent;
  char digits[24]; /* the first ones */
} decimal;

/* Take a number of digits, a point and an exponent apart; 0 where it is none. */
static int take_apart(din_key key, decimal *out) {
  const uint8_t *at = key.data, *stop = key.data + key.num_bytes;
  int64_t behind_point = 0, exponent = 0;
  int has_digit = 0, has_point = 0;
  memset(out, 0, sizeof *out);
  if (at < stop && (*at == '+' || *at == '-')) out->is_negative = *at++ == '-';
  for (; at < stop && ((*at >= '0' && *at <= '9') || (*at == '.' && !has_point));
       ++at) {
    if (*at == '.') {
      has_point = 1;
      continue;
    }
    has_digit = 1;
    behind_point += has_point;
    if (*at == '0' && out->num_digits == 0) continue;
    if (out->num_digits < 24) out->digits[out->num_digits] = (char)*at;
    ++out->num_digits;
    if (*at != '0') out->num_kept = out->num_digits;
  }
  if (!has_digit) return 0;
  if (at < stop && (*at == 'e' || *at == 'E')) {
    int is_negative = 0;
    ++at;
    if (at < stop && (*at == '+' || *at == '-')) is_negative = *at++ == '-';
    if (at == stop) return 0;
    for (; at < stop && *at >= '0' && *at <= '9'; ++at) {
      if (exponent < INT64_C(1) << 40) exponent = 10 * exponent + (*at - '0');
    }
    if (is_negative) exponent = -exponent;
  }
  out->exponent = exponent - behind_point;
  return at == stop;
}

/* Words for 1 and 0; -1 for all else. */
static int word_of(din_key key) {
  if (is_word(key, "true") || is_word(key, "True") || is_word(key, "TRUE")) return 1;
  if (is_word(key, "false") || is_word(key, "False") || is_word(key, "FALSE")) return 0;
  return -1;
}

/* Read a whole number, also one written as 3.0 or 3e0; 0 where it is none. */
static int read_whole(din_key key, int64_t *out) {
  decimal d;
  const int word = word_of(key);
  if (word >= 0) {
    *out = word;
    return 1;
  }
  if (!take_apart(key, &d)) return 0;
  const int64_t num_digits = d.num_digits > 0 ? d.num_digits : 1;
  if (d.exponent + num_digits - 1 > 18) return 0;
  uint64_t value = 0;
  int64_t left = d.exponent + d.num_digits; /* digits before the point */
  /* a digit behind the point that is not 0 */
  if (d.num_kept > 0 && d.num_kept > left) return 0;
  for (int64_t i = 0; i < d.num_kept; ++i, --left) {
    value = 10 * value + (uint64_t)(d.digits[i] - '0');
  }
  for (; d.num_digits > 0 && left > 0; --left) value *= 10;
  if (value > (uint64_t)INT64_MAX + (uint64_t)d.is_negative) return 0;
  *out = d.is_negative ? (int64_t)(0 - value) : (int64_t)value;
  return 1;
}

static int is_name(din_key key, const char *name) {
  const int64_t size = (int64_t)strlen(name);
  if (key.num_bytes != size) return 0;
  for (int64_t i = 0; i < size; ++i) {
    if ((key.data[i] | 32) != name[i]) return 0;
  }
  return 1;
}

static int read_double(din_key key, double *out) {
  decimal d;
  char text[400];
  const int word = word_of(key);
  if (word >= 0) {
    *out = word;
    return 1;
  }
  din_key bare = key;
  const int has_sign = key.num_bytes > 0 && (key.data[0] == '-' || key.data[0] == '+');
  bare.data += has_sign;
  bare.num_bytes -= has_sign;
  const double sign = has_sign && key.data[0] == '-' ? -1.0 : 1.0;
  if (is_name(bare, "nan")) {
    *out = (double)NAN;
  } else if (is_name(bare, "inf") || is_name(bare, "infinity")) {
    *out = sign * (double)INFINITY;
  } else if (take_apart(key, &d) && key.num_bytes < (int64_t)sizeof text) {
    memcpy(text, key.data, (size_t)key.num_bytes);
    text[key.num_bytes] = '\0';
    *out = din_json_double(text, key.num_bytes);
  } else {
    return 0;
  }
  return 1;
}

/* Append a text, or the number in it; 0 where there is none. */
static int add(lists *l, din_key key) {
  const int64_t i = l->count++;
  if (l->reads == DIN_READS_BYTES) {
    memcpy(l->text + l->text_bytes, key.data, (size_t)key.num_bytes);
    l->text_bytes += key.num_bytes;
    l->numbers[i + 1] = l->text_bytes;
    set(l->valid, i);
    return 1;
  }
  key = strip(key);
  if (key.num_bytes == 0) return 1; /* null */
  set(l->valid, i);
  if (l->reads == DIN_READS_INT64) return read_whole(key, &l->numbers[i]);
  double number = 0.0;
  const int is_fine = read_double(key, &number);
  memcpy(&l->numbers[i], &number, sizeof number);
  return is_fine;
}

static int add_separated(lists *l, din_key text, din_key sign) {
  const uint8_t *stop = text.data + text.num_bytes;
  for (const uint8_t *at = text.data; text.num_bytes > 0;) {
    const uint8_t *end = find(at, stop, sign);
    if (!add(l, (din_key){at, end - at})) return 0;
    if (end == stop) break;
    at = end + sign.num_bytes;
  }
  return 1;
}

static int add_json(lists *l, din_key text) {
  char unused[80];
  if (text.num_bytes == 0) return 1;
  din_json_document *d =
      din_json_read((const char *)text.data, text.num_bytes, unused, sizeof unused);
  if (d == NULL) return 0;
  const din_json *root = din_json_root(d);
  int is_fine = root->kind == DIN_JSON_LIST || root->kind == DIN_JSON_NULL;
  const int wanted = l->reads == DIN_READS_BYTES ? DIN_JSON_STRING : DIN_JSON_NUMBER;
  for (const din_json *x = root->first; x != NULL && is_fine; x = x->next) {
    const int is_flag = x->kind == DIN_JSON_TRUE || x->kind == DIN_JSON_FALSE;
    const int is_number = wanted == DIN_JSON_NUMBER;
    if (x->kind == DIN_JSON_NULL || (x->kind == DIN_JSON_NAN && is_number)) {
      const int64_t i = l->count++;
      if (l->reads == DIN_READS_BYTES) l->numbers[i + 1] = l->text_bytes;
    } else if (is_flag && is_number) {
      const int is_true = x->kind == DIN_JSON_TRUE;
      is_fine = add(l, (din_key){(const uint8_t *)(is_true ? "1" : "0"), 1});
    } else {
      is_fine = (x->kind == wanted || (x->kind == DIN_JSON_INFINITY && is_number)) &&
                add(l, (din_key){(const uint8_t *)x->text, x->size});
    }
  }
  din_json_free(d);
  return is_fine;
}

static int refuse(const din_encoding *e, const din_source *source,
                  const din_column *column, int64_t row) {
  static const char *const many[] = {"strings", "integers", "numbers"};
  char rule[120], got[120];
  if (source->written == DIN_TEXT_JSON) {
    snprintf(rule, sizeof rule, "a list of %s as JSON", many[source->reads]);
  } else {
    snprintf(rule, sizeof rule, "a list of %s with '%.40s' between them",
             many[source->reads], (const char *)source->separator.data);
  }
  din_show_value(column, row, got, sizeof got);
  return din_say(e->error, e->error_size, rule, got, source->name, row, "");
}

/* Copies of the texts, which another thread may write to: they are read twice, once for
   the room that their lists need. The keys, then the bytes, in one block; NULL when
   memory is out. */
static din_key *copy_texts(const din_column *c, int64_t *bytes) {
  const size_t room = ((size_t)c->num_rows + 1) * sizeof(din_key);
  din_key *keys = malloc(room);
  if (keys == NULL) return NULL;
  *bytes = 0;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    keys[row] = text_of(c, row);
    *bytes += keys[row].num_bytes;
  }
  din_key *whole = realloc(keys, room + (size_t)*bytes);
  if (whole == NULL) {
    free(keys);
    return NULL;
  }
  uint8_t *to = (uint8_t *)whole + room;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    if (whole[row].data == NULL) continue;
    memcpy(to, whole[row].data, (size_t)whole[row].num_bytes);
    whole[row].data = to;
    to += whole[row].num_bytes;
  }
  return whole;
}

static int no_memory(const din_encoding *e, const din_source *source) {
  return din_say(e->error, e->error_size, "memory for its lists", "none", source->name,
                 -1, "");
}

static int split(const din_encoding *e, const din_source *source, const din_view *text,
                 const din_key *keys, int64_t bytes, din_view *out, void **memory) {
  const din_column *c = &text->column;
  const int64_t rows = c->num_rows;
  const int is_json = source->written == DIN_TEXT_JSON;
  int64_t most = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const din_key key = keys[row];
    if (key.data == NULL) continue;
    most += is_json ? key.num_bytes / 2 + 1 : 1;
    const uint8_t *stop = key.data + key.num_bytes;
    for (const uint8_t *at = key.data; !is_json && key.num_bytes > 0; ++most) {
      at = find(at, stop, source->separator);
      if (at == stop) break;
      at += source->separator.num_bytes;
    }
  }
  const size_t numbers = (size_t)(rows + 1 + most + 1) * sizeof(int64_t);
  const size_t bits = (size_t)(rows / 8 + 1 + most / 8 + 1);
  char *block = calloc(1, numbers + bits + (size_t)bytes + 1);
  if (block == NULL) return no_memory(e, source);
  *memory = block;
  lists l = {.offsets = (int64_t *)(void *)block, .reads = source->reads};
  l.numbers = l.offsets + rows + 1;
  l.row_valid = (uint8_t *)(l.numbers + most + 1);
  l.valid = l.row_valid + rows / 8 + 1;
  l.text = l.valid + most / 8 + 1;
  for (int64_t row = 0; row < rows; ++row) {
    const din_key key = keys[row];
    if (key.data != NULL) {
      set(l.row_valid, row);
      if (!(is_json ? add_json(&l, key) : add_separated(&l, key, source->separator))) {
        return refuse(e, source, c, row);
      }
    }
    l.offsets[row + 1] = l.count;
  }
  memset(out, 0, sizeof *out);
  out->is_given = out->is_list = 1;
  out->is_binary = text->is_binary;
  din_column *made = &out->column;
  made->nesting = DIN_LIST64;
  made->num_rows = rows;
  made->offsets = l.offsets;
  made->validity = l.row_valid;
  made->values.length = l.count;
  made->values.data = l.numbers;
  made->values.validity = l.valid;
  const char *name = "int64";
  out->kind = DIN_KIND_INT;
  made->values.type = DIN_INT64;
  if (source->reads == DIN_READS_BYTES) {
    out->kind = DIN_KIND_STRING;
    made->values.type = DIN_BYTES64;
    made->values.bytes = l.text;
    made->values.num_bytes = l.text_bytes;
    name = text->type_name;
  } else if (source->reads == DIN_READS_FLOAT64) {
    out->kind = DIN_KIND_FLOAT;
    made->values.type = DIN_FLOAT64;
    name = "float64";
  }
  snprintf(out->type_name, sizeof out->type_name, "%s", name);
  return 0;
}

int din_split_texts(const din_encoding *e, const din_source *source,
                    const din_view *text, din_view *out, void **memory) {
  int64_t bytes;
  din_key *keys = copy_texts(&text->column, &bytes);
  if (keys == NULL) return no_memory(e, source);
  const int failed = split(e, source, text, keys, bytes, out, memory);
  free(keys);
  return failed;
}
