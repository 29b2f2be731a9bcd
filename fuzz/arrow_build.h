/*
 * Arrow structures made of a fuzzer's input: columns of every type that is known, and of
 * some that are not, right for the most part, with lies about lengths, offsets, nulls,
 * buffers, children and dictionaries.
 *
 * A buffer is exactly as large as what is claimed of it needs, so that any read behind
 * it is found. What no reader can know is not lied about: that a buffer is smaller.
 *
 * Above 400 lines: each layout of Arrow's.
 */
#ifndef FUZZ_ARROW_BUILD_H
#define FUZZ_ARROW_BUILD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrow_abi.h"
#include "input.h"

/* What a column should be, for the most part. */
enum { WANT_TEXT, WANT_INTEGER, WANT_NUMBER, NUM_WANTS };

/* Longest column, and most that is allocated for one buffer. */
enum { MOST_ROWS = 300, MOST_BYTES = 1 << 20 };

typedef struct {
  const char *format;
  int32_t width; /* of an element in bytes; 0: of other layouts */
} leaf_format;

static const leaf_format TEXT_FORMATS[] = {{"u", 0},     {"U", 0},  {"vu", 0},
                                           {"z", 0},     {"Z", 0},  {"vz", 0},
                                           {"w:16", 16}, {"w:3", 3}};
static const leaf_format INTEGER_FORMATS[] = {{"l", 8}, {"i", 4}, {"s", 2}, {"c", 1},
                                              {"L", 8}, {"I", 4}, {"S", 2}, {"C", 1}};
static const leaf_format NUMBER_FORMATS[] = {{"g", 8},
                                             {"f", 4},
                                             {"e", 2},
                                             {"b", 0},
                                             {"d:9,0,32", 4},
                                             {"d:18,2,64", 8},
                                             {"d:38,0", 16},
                                             {"d:30,-2,128", 16},
                                             {"d:76,40,256", 32},
                                             {"d:5,2147483647", 16},
                                             {"_pli128", 16},
                                             {"n", 0}};
/* Not to be read, or only where nothing is in it. */
static const leaf_format ODD_FORMATS[] = {{"w:0", 0},
                                          {"w:2147483647", 0},
                                          {"w:-1", 0},
                                          {"w:", 0},
                                          {"w:99999999999", 0},
                                          {"d:", 16},
                                          {"d:0,0", 16},
                                          {"d:39,0", 16},
                                          {"d:9,0,31", 16},
                                          {"d:9", 16},
                                          {"d:9,-2147483648", 16},
                                          {"d:9,1,", 16},
                                          {"tdD", 4},
                                          {"tsu:", 8},
                                          {"ttm", 4},
                                          {"+s", 0},
                                          {"+m", 0},
                                          {"+ud:0,1", 0},
                                          {"+r", 0},
                                          {"", 0},
                                          {"u2", 0},
                                          {"\xff\xfe", 0},
                                          {"+w:", 0},
                                          {"+w:-1", 0},
                                          {"+w:2147483648", 0},
                                          {"+l2", 0},
                                          {"+", 0}};
static const char *const LIST_FORMATS[] = {"+l",   "+L",   "+vl",  "+vL",
                                           "+w:2", "+w:0", "+w:1", "+w:2147483647"};
static const char *const EXTENSIONS[] = {"arrow.uuid",
                                         "arrow.json",
                                         "arrow.bool8",
                                         "arrow.fixed_shape_tensor",
                                         "ray.data.arrow_tensor",
                                         "another.type",
                                         ""};
static const char *const ABOUTS[] = {"",  "{\"shape\":[2]}", "[2]", "{\"shape\":[2,3]}",
                                     "{", "\x80\x04"};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static void put_text(uint8_t **to, const char *text) {
  const int32_t size = (int32_t)strlen(text);
  memcpy(*to, &size, 4);
  memcpy(*to + 4, text, (size_t)size);
  *to += 4 + size;
}

/* Metadata that names an extension type; none for the most part. */
static const char *make_metadata(input *in) {
  if (take(in) < 235) return NULL;
  const char *name = EXTENSIONS[pick(in, COUNT(EXTENSIONS))];
  const char *about = ABOUTS[pick(in, COUNT(ABOUTS))];
  const int32_t count = lies(in) ? (pick(in, 2) ? -1 : 0) : 2;
  static const char *const keys[] = {"ARROW:extension:name",
                                     "ARROW:extension:metadata"};
  const size_t size =
      4 + 16 + strlen(keys[0]) + strlen(keys[1]) + strlen(name) + strlen(about);
  uint8_t *made = give(in, size);
  uint8_t *at = made + 4;
  memcpy(made, &count, 4);
  put_text(&at, keys[0]);
  put_text(&at, name);
  put_text(&at, keys[1]);
  put_text(&at, about);
  if (lies(in)) memset(made + 4, 0xFF, 4); /* a size of -1 */
  return (const char *)made;
}

static struct ArrowSchema *make_schema(input *in, const char *format,
                                       const char *name) {
  struct ArrowSchema *made = give(in, sizeof *made);
  *made = (struct ArrowSchema){
      .format = format, .name = name, .metadata = make_metadata(in)};
  if (lies(in) && pick(in, 8) == 0) made->format = NULL;
  return made;
}

/* An impossible length or offset, which every reader has to refuse. */
static int64_t impossible(input *in) {
  static const int64_t values[] = {
      -1, INT64_MIN, INT64_MAX, INT64_MAX - 1, -2147483648LL, INT64_MAX / 2};
  return values[pick(in, COUNT(values))];
}

/* An array with its length, offset and null count, and room for `room` buffers. */
static struct ArrowArray *make_array(input *in, int64_t length, int64_t buffers) {
  struct ArrowArray *made = give(in, sizeof *made);
  *made = (struct ArrowArray){.length = length, .n_buffers = buffers};
  const int near = take(in);
  if (near >= 200) made->offset = near - 199;
  return made;
}

/* Entries that a buffer needs: `more` of them behind the last element. */
static int64_t needed(const struct ArrowArray *a, int64_t more) {
  return a->offset + a->length + more;
}

/* Spoil what is claimed, once the buffers are there. */
static void spoil(input *in, struct ArrowArray *a) {
  static const int64_t nulls[] = {-1, 1, INT64_MIN, INT64_MAX, 1000};
  if (!lies(in)) return;
  switch (pick(in, 8)) {
    case 0:
      a->length = impossible(in);
      break;
    case 1:
      a->offset = impossible(in);
      break;
    case 2:
      a->null_count = nulls[pick(in, COUNT(nulls))];
      break;
    case 3: /* fewer buffers, and no room for others */
      /* of views the last one has sizes: which it is, nobody else knows */
      a->n_buffers = a->n_buffers > 3 ? 2 : a->n_buffers > 0 ? a->n_buffers - 1 : 0;
      if (pick(in, 4) == 0) a->n_buffers = pick(in, 2) ? INT64_MIN : -1;
      const size_t size = a->n_buffers > 0 ? (size_t)a->n_buffers * sizeof(void *) : 0;
      const void **fewer = give(in, size);
      if (size > 0) memcpy(fewer, a->buffers, size);
      a->buffers = fewer;
      break;
    case 4:
      a->buffers = NULL;
      break;
    case 5:
      if (a->n_buffers > 0) a->buffers[pick(in, (int)a->n_buffers)] = NULL;
      break;
    case 6: /* fewer elements than somebody counts on */
      if (a->length > 0) a->length = pick(in, (int)a->length);
      break;
    default: /* the same elements, others first */
      if (a->length > 0) {
        const int64_t skipped = pick(in, (int)a->length);
        a->offset += skipped;
        a->length -= skipped;
      }
  }
}

static const void **make_buffers(input *in, struct ArrowArray *a) {
  a->buffers = give(in, (size_t)a->n_buffers * sizeof(void *));
  for (int64_t i = 0; i < a->n_buffers; ++i) a->buffers[i] = NULL;
  return a->buffers;
}

/* A bitmap of nulls, or none; null_count says so, says nothing, or denies it. */
static void make_validity(input *in, struct ArrowArray *a) {
  const int how = take(in) % 4;
  if (how == 0) return;
  const int64_t count = (needed(a, 0) + 7) / 8;
  uint8_t *bits = give(in, (size_t)count);
  fill_bytes(in, bits, count);
  a->buffers[0] = bits;
  a->null_count = how == 1 ? -1 : how == 2 ? 1 : 0;
}

/* Write entry i of an integer of `width` bytes, cut. */
static void put(void *buffer, int32_t width, int64_t i, int64_t value) {
  uint8_t *to = (uint8_t *)buffer + i * width;
  for (int32_t k = 0; k < width; ++k) to[k] = (uint8_t)((uint64_t)value >> 8 * k);
}

/* Offsets that rise from some first one, or do not; returns the highest. */
static int64_t make_ends(input *in, void *out, int32_t width, int64_t count,
                         int64_t longest, int64_t most) {
  int64_t end = take(in) >= 224 ? pick(in, 4) : 0;
  int64_t highest = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t written = end;
    if (lies(in)) {
      static const int64_t wrong[] = {-1, INT32_MIN, INT64_MIN, 0, 1};
      written = wrong[pick(in, COUNT(wrong))];
    }
    put(out, width, i, written);
    highest = written > highest ? written : highest;
    end += draw(in) % (longest + 1);
    if (end > most) end = most;
  }
  return highest;
}

static void make_text(input *in, struct ArrowArray *a, int32_t width) {
  const int64_t count = needed(a, 1);
  uint8_t *ends = give(in, (size_t)(count * width));
  const int64_t longest = (int64_t[]){3, 9, 20, 70}[pick(in, 4)];
  const int64_t size = make_ends(in, ends, width, count, longest, 4096);
  a->buffers[1] = ends;
  if (size == 0 && pick(in, 2)) return; /* text without bytes */
  uint8_t *text = give(in, (size_t)size);
  fill_text(in, text, size);
  a->buffers[2] = text;
}

/* Views: a buffer of their 16 bytes, `own` of text, and the sizes of these. */
static void make_views(input *in, struct ArrowArray *a) {
  const int64_t own = a->n_buffers - 3, count = needed(a, 0);
  int64_t *sizes = give(in, (size_t)own * sizeof *sizes);
  for (int64_t k = 0; k < own; ++k) {
    sizes[k] = take(in) % 64;
    uint8_t *text = give(in, (size_t)sizes[k]);
    fill_text(in, text, sizes[k]);
    a->buffers[2 + k] = text;
    if (lies(in)) sizes[k] = impossible(in) | INT64_MIN; /* less than nothing */
  }
  a->buffers[a->n_buffers - 1] = sizes;
  uint8_t *views = give(in, (size_t)count * 16);
  for (int64_t i = 0; i < count; ++i) {
    int32_t words[4] = {0, 0, 0, 0};
    words[0] = (int32_t)(draw(in) % 40);
    if (words[0] > 12) {
      words[2] = own > 0 ? (int32_t)(draw(in) % own) : 0;
      words[3] = own > 0 ? (int32_t)(draw(in) % 24) : 0;
      const int64_t room =
          own > 0 && sizes[words[2]] > 0 ? sizes[words[2]] - words[3] : 0;
      if (words[0] > room && take(in) < 240) words[0] = room > 12 ? (int32_t)room : 12;
    } else {
      fill_text(in, (uint8_t *)(words + 1), words[0]);
    }
    if (lies(in)) {
      static const int32_t wrong[] = {-1, INT32_MIN, INT32_MAX, 13, 3};
      words[pick(in, 4)] = wrong[pick(in, COUNT(wrong))];
    }
    memcpy(views + i * 16, words, 16);
  }
  a->buffers[1] = views;
}

/* An array of single values of a format. */
static struct ArrowArray *make_leaf(input *in, leaf_format f, int64_t length) {
  const int is_views = f.format[0] == 'v';
  const int is_text = strchr("uUzZ", f.format[0]) != NULL && f.format[0] != '\0';
  const int is_null = f.format[0] == 'n';
  const int64_t buffers = is_views ? 3 + pick(in, 3) : is_text ? 3 : is_null ? 0 : 2;
  struct ArrowArray *a = make_array(in, length, buffers);
  make_buffers(in, a);
  if (is_null) {
    a->null_count = length;
  } else {
    make_validity(in, a);
    if (is_views) {
      make_views(in, a);
    } else if (is_text) {
      make_text(in, a, f.format[0] == 'U' || f.format[0] == 'Z' ? 8 : 4);
    } else {
      const int64_t bits = f.format[0] == 'b' ? 1 : 8 * (int64_t)f.width;
      const int64_t size = (needed(a, 0) * bits + 7) / 8;
      uint8_t *data = give(in, (size_t)size);
      fill_numbers(in, data, size, f.width > 0 ? f.width : 1);
      /* of a width that is unknown here, none */
      a->buffers[1] = bits > 0 ? data : NULL;
    }
  }
  spoil(in, a);
  return a;
}

/* Indices into `entries` values. */
static struct ArrowArray *make_indices(input *in, leaf_format f, int64_t length,
                                       int64_t entries) {
  struct ArrowArray *a = make_array(in, length, 2);
  make_buffers(in, a);
  make_validity(in, a);
  uint8_t *data = give(in, (size_t)(needed(a, 0) * f.width));
  for (int64_t i = 0; i < needed(a, 0); ++i) {
    int64_t index = entries > 0 ? draw(in) % entries : 0;
    if (a->buffers[0] != NULL &&
        !(((const uint8_t *)a->buffers[0])[i >> 3] >> (i & 7) & 1)) {
      index = (int64_t)(draw(in) * UINT64_C(0x123456789ABCDEF)); /* anything */
    }
    if (lies(in)) index = pick(in, 2) ? entries : impossible(in);
    put(data, f.width, i, index);
  }
  a->buffers[1] = data;
  spoil(in, a);
  return a;
}

typedef struct {
  struct ArrowSchema *schema;
  struct ArrowArray *array;
} column;

static leaf_format pick_leaf(input *in, int want) {
  const int odd = take(in);
  if (odd >= 250) return ODD_FORMATS[pick(in, COUNT(ODD_FORMATS))];
  if (odd >= 240) want = pick(in, NUM_WANTS);
  if (want == WANT_TEXT) return TEXT_FORMATS[pick(in, COUNT(TEXT_FORMATS))];
  if (want == WANT_NUMBER && pick(in, 2)) {
    return NUMBER_FORMATS[pick(in, COUNT(NUMBER_FORMATS))];
  }
  return INTEGER_FORMATS[pick(in, COUNT(INTEGER_FORMATS))];
}

static column make_column(input *in, const char *name, int want, int is_list,
                          int64_t length, int depth, int is_coded);

/* A column of indices into another. */
static column make_coded(input *in, const char *name, int want, int is_list,
                         int64_t length, int depth) {
  const int64_t entries = pick(in, 12) == 11 ? 280 : pick(in, 9);
  leaf_format f = INTEGER_FORMATS[pick(in, COUNT(INTEGER_FORMATS))];
  const column of = make_column(in, name, want, is_list, entries, depth + 1, 0);
  column made = {make_schema(in, f.format, name),
                 make_indices(in, f, length, of.array ? of.array->length : entries)};
  made.schema->dictionary = of.schema;
  made.array->dictionary = of.array;
  if (lies(in)) {
    if (pick(in, 2)) {
      made.array->dictionary = NULL;
    } else {
      made.schema->dictionary = NULL;
    }
  }
  if (lies(in) && f.width == 8) made.schema->format = "g";
  return made;
}

/* A column of lists of another's elements. */
static column make_lists(input *in, const char *name, int want, int64_t length,
                         int depth) {
  const char *format = LIST_FORMATS[pick(in, COUNT(LIST_FORMATS))];
  const int is_view = format[1] == 'v', is_fixed = format[1] == 'w';
  const int is_wide = format[1] == 'L' || format[2] == 'L';
  const int32_t width = is_wide ? 8 : 4;
  struct ArrowArray *a = make_array(in, length, is_view ? 3 : is_fixed ? 1 : 2);
  make_buffers(in, a);
  make_validity(in, a);
  int64_t elements = is_fixed ? needed(a, 0) * (format[3] - '0') : pick(in, 200);
  if (is_fixed && strlen(format) > 5) elements = 2;
  if (!is_fixed) {
    const int64_t count = needed(a, is_view ? 0 : 1);
    uint8_t *ends = give(in, (size_t)(count * width));
    const int64_t longest = is_view ? elements : pick(in, 4) ? 3 : 40;
    if (is_view) {
      uint8_t *sizes = give(in, (size_t)(count * width));
      for (int64_t i = 0; i < count; ++i) {
        const int64_t start = elements > 0 ? draw(in) % elements : 0;
        const int64_t size = draw(in) % 5;
        put(ends, width, i, lies(in) ? impossible(in) : start);
        put(sizes, width, i, start + size > elements && take(in) < 250 ? 0 : size);
      }
      a->buffers[2] = sizes;
    } else {
      elements = make_ends(in, ends, width, count, longest, 3000);
      if (lies(in)) elements = pick(in, 9);
    }
    a->buffers[1] = ends;
  }
  const int is_coded = take(in) % 4 == 3;
  const column of = make_column(in, "item", want, 0, elements, depth + 1, is_coded);
  column made = {make_schema(in, format, name), a};
  made.schema->n_children = a->n_children = 1;
  made.schema->children = give(in, sizeof of.schema);
  made.schema->children[0] = of.schema;
  a->children = give(in, sizeof of.array);
  a->children[0] = of.array;
  if (lies(in)) {
    switch (pick(in, 6)) {
      case 0:
        a->n_children = 0;
        break;
      case 1:
        a->n_children = -1;
        break;
      case 2:
        a->children = NULL;
        break;
      case 3:
        a->children[0] = NULL;
        break;
      case 4:
        made.schema->n_children = pick(in, 2) ? 0 : INT64_MIN;
        break;
      default:
        made.schema->children[0] = NULL;
    }
  }
  spoil(in, a);
  return made;
}

static column make_column(input *in, const char *name, int want, int is_list,
                          int64_t length, int depth, int is_coded) {
  if (depth < 4 && is_coded) {
    return make_coded(in, name, want, is_list, length, depth);
  }
  if (depth < 4 && is_list) return make_lists(in, name, want, length, depth);
  const leaf_format f = pick_leaf(in, want);
  return (column){make_schema(in, f.format, name), make_leaf(in, f, length)};
}

/* What one column of a table is to be. */
typedef struct {
  const char *name;
  int want;
  int is_list;
} wanted_column;

/* Choose types for a table's columns: the bytes that do so are taken again per batch. */
static column make_table(input *in, const wanted_column *wanted, int count) {
  const int64_t rows = take(in) >= 250 ? MOST_ROWS : pick(in, 12);
  struct ArrowArray *a = make_array(in, rows, 1);
  column made = {make_schema(in, "+s", ""), a};
  make_buffers(in, a);
  if (take(in) >= 250) make_validity(in, a);
  struct ArrowSchema **schemas = give(in, (size_t)count * sizeof *schemas);
  struct ArrowArray **arrays = give(in, (size_t)count * sizeof *arrays);
  for (int i = 0; i < count; ++i) {
    wanted_column w = wanted[i];
    const int how = take(in);
    if (how >= 250) w.is_list = !w.is_list;
    if (how >= 245 && how < 250) w.name = wanted[pick(in, count)].name;
    const int64_t length = a->offset + rows + (lies(in) ? pick(in, 3) - 1 : 0);
    const int is_coded = how % 4 == 3;
    const column c = make_column(in, w.name, w.want, w.is_list, length > 0 ? length : 0,
                                 0, is_coded);
    if (lies(in) && pick(in, 4) == 0) c.schema->name = NULL;
    schemas[i] = c.schema;
    arrays[i] = c.array;
  }
  made.schema->n_children = a->n_children = count;
  made.schema->children = schemas;
  a->children = arrays;
  if (count > 0 && lies(in)) {
    switch (pick(in, 6)) {
      case 0:
        a->n_children = pick(in, count);
        break;
      case 1:
        made.schema->n_children = pick(in, count);
        break;
      case 2:
        a->children[pick(in, count)] = NULL;
        break;
      case 3:
        made.schema->children[pick(in, count)] = NULL;
        break;
      case 4:
        a->children = NULL;
        break;
      default:
        made.schema->children = NULL;
    }
  }
  if (lies(in) && pick(in, 3) == 0) {
    a->length = impossible(in);
  } else if (lies(in) && pick(in, 3) == 0) {
    a->offset = impossible(in);
  }
  return made;
}

#endif /* FUZZ_ARROW_BUILD_H */
