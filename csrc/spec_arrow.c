#include "spec_arrow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

typedef struct {
  const char *format;
  int32_t type;
  int32_t kind;
  const char *name;
} format;

static const format FORMATS[] = {
    {"n", DIN_NULL, DIN_KIND_NULL, "null"},
    {"b", DIN_BOOL, DIN_KIND_INT, "bool"},
    {"c", DIN_INT8, DIN_KIND_INT, "int8"},
    {"C", DIN_UINT8, DIN_KIND_INT, "uint8"},
    {"s", DIN_INT16, DIN_KIND_INT, "int16"},
    {"S", DIN_UINT16, DIN_KIND_INT, "uint16"},
    {"i", DIN_INT32, DIN_KIND_INT, "int32"},
    {"I", DIN_UINT32, DIN_KIND_INT, "uint32"},
    {"l", DIN_INT64, DIN_KIND_INT, "int64"},
    {"L", DIN_UINT64, DIN_KIND_INT, "uint64"},
    {"e", DIN_FLOAT16, DIN_KIND_FLOAT, "float16"},
    {"f", DIN_FLOAT32, DIN_KIND_FLOAT, "float32"},
    {"g", DIN_FLOAT64, DIN_KIND_FLOAT, "float64"},
    {"u", DIN_BYTES32, DIN_KIND_STRING, "string"},
    {"U", DIN_BYTES64, DIN_KIND_STRING, "large_string"},
    {"vu", DIN_BYTES_VIEW, DIN_KIND_STRING, "string_view"},
    {"z", DIN_BYTES32, DIN_KIND_STRING, "binary"},
    {"Z", DIN_BYTES64, DIN_KIND_STRING, "large_binary"},
    {"vz", DIN_BYTES_VIEW, DIN_KIND_STRING, "binary_view"},
};
#define NUM_FORMATS (sizeof FORMATS / sizeof *FORMATS)

typedef struct {
  const char *name;
  char *error;
  size_t error_size;
} call;

static int malformed(const call *c, const char *rule) {
  return din_say(c->error, c->error_size, rule, "a malformed Arrow array", c->name, -1,
                 "");
}

/* A whole number up to the end of a text or a comma, and where that is; -1 for none. */
static int64_t read_number(const char *text, const char **end) {
  char *stop;
  const long long found = strtoll(text, &stop, 10);
  *end = stop;
  return stop == text || found < 0 || found > INT32_MAX ? -1 : (int64_t)found;
}

static int read_decimal(const call *c, const char *text, din_values *v) {
  static const int digits[] = {9, 18, 38, 76};
  static const int widths[] = {32, 64, 128, 256};
  char *end;
  const char *stop;
  int64_t bits = 128;
  const int64_t precision = read_number(text, &stop);
  if (*stop != ',') return malformed(c, "a decimal's precision and scale");
  const long long scale = strtoll(stop + 1, &end, 10);
  if (end == stop + 1 || scale <= INT32_MIN || scale > INT32_MAX) {
    return malformed(c, "a decimal's precision and scale");
  }
  if (*end == ',') bits = read_number(end + 1, &stop);
  for (int i = 0; i < 4; ++i) {
    if (bits != widths[i] || precision < 1 || precision > digits[i]) continue;
    v->type = DIN_DECIMAL32 + i;
    v->scale = (int32_t)scale;
    return 0;
  }
  return malformed(c, "a decimal's precision and scale");
}

/* An extension type: its name, "" for none, and what is said of it. */
typedef struct {
  char name[64];
  const char *about;
  int64_t about_size;
} extension;

static extension read_extension(const char *metadata) {
  extension out = {.about = ""};
  const int32_t count = metadata == NULL ? 0 : din_read_i32(metadata, 0);
  const char *at = metadata == NULL ? NULL : metadata + 4;
  for (int32_t i = 0; i < count; ++i) {
    const char *parts[2];
    int32_t sizes[2];
    for (int k = 0; k < 2; ++k) {
      sizes[k] = din_read_i32(at, 0);
      if (sizes[k] < 0) return out;
      parts[k] = at + 4;
      at += 4 + sizes[k];
    }
    if (sizes[0] == 20 && memcmp(parts[0], "ARROW:extension:name", 20) == 0) {
      snprintf(out.name, sizeof out.name, "%.*s", (int)sizes[1], parts[1]);
    }
    if (sizes[0] == 24 && memcmp(parts[0], "ARROW:extension:metadata", 24) == 0) {
      out.about = parts[1];
      out.about_size = sizes[1];
    }
  }
  return out;
}

/* Whether an extension type over lists is a tensor of one dimension: lists no less. */
static int is_vector(const extension *e) {
  char unused[80];
  if (strcmp(e->name, "arrow.fixed_shape_tensor") != 0 &&
      strcmp(e->name, "ray.data.arrow_tensor") != 0 &&
      strcmp(e->name, "ray.data.arrow_tensor_v2") != 0) {
    return 0;
  }
  din_json_document *d = din_json_read(e->about, e->about_size, unused, sizeof unused);
  if (d == NULL) return 0;
  const din_json *root = din_json_root(d);
  const din_json *shape =
      root->kind == DIN_JSON_TABLE ? din_json_member(root, "shape") : root;
  const int found = shape != NULL && shape->kind == DIN_JSON_LIST && shape->size == 1;
  din_json_free(d);
  return found;
}

static void name_extension(const extension *e, din_view *view) {
  view->kind = DIN_KIND_OTHER;
  snprintf(view->type_name, sizeof view->type_name, "extension type %.28s", e->name);
}

/* Read a type of single values into a view and `v`. */
static int read_leaf(const call *c, const struct ArrowSchema *s, const extension *of,
                     din_view *view, din_values *v) {
  const char *text = s->format == NULL ? "" : s->format;
  view->kind = DIN_KIND_OTHER;
  snprintf(view->type_name, sizeof view->type_name, "Arrow format '%.20s'", text);
  for (size_t i = 0; i < NUM_FORMATS; ++i) {
    if (strcmp(FORMATS[i].format, text) != 0) continue;
    v->type = FORMATS[i].type;
    view->kind = FORMATS[i].kind;
    view->is_binary = strchr(text, 'z') != NULL || strchr(text, 'Z') != NULL;
    snprintf(view->type_name, sizeof view->type_name, "%s", FORMATS[i].name);
  }
  if (strncmp(text, "d:", 2) == 0) {
    view->kind = DIN_KIND_DECIMAL;
    snprintf(view->type_name, sizeof view->type_name, "decimal");
    if (read_decimal(c, text + 2, v)) return -1;
  } else if (strncmp(text, "w:", 2) == 0) {
    const char *end;
    const int64_t width = read_number(text + 2, &end);
    if (width < 1 || *end != '\0') return malformed(c, "a width");
    v->type = DIN_BYTES_FIXED;
    view->kind = DIN_KIND_FIXED;
    v->width = view->width = (int32_t)width;
    snprintf(view->type_name, sizeof view->type_name, "fixed_size_binary[%d]",
             (int)width);
  }
  if (of == NULL || of->name[0] == '\0') return 0;
  if (strcmp(of->name, "arrow.uuid") == 0 && view->width == DIN_UUID_BYTES) {
    snprintf(view->type_name, sizeof view->type_name, "uuid");
  } else if (strcmp(of->name, "arrow.bool8") == 0 && v->type == DIN_INT8) {
    v->type = DIN_BOOL8;
    snprintf(view->type_name, sizeof view->type_name, "bool");
  } else if (strcmp(of->name, "arrow.json") != 0 || view->kind != DIN_KIND_STRING) {
    name_extension(of, view);
  }
  return 0;
}

static int check_array(const call *c, const struct ArrowArray *a, int64_t min_buffers,
                       int64_t skipped) {
  if (a->length < 0 || a->length > DIN_MAX_ROWS || a->offset < 0 ||
      a->offset > DIN_MAX_ROWS || skipped < 0 || skipped > a->length) {
    return malformed(c, "a length and an offset that fit");
  }
  if (a->n_buffers < min_buffers || (min_buffers > 0 && a->buffers == NULL)) {
    return malformed(c, "all of its buffers");
  }
  return 0;
}

static int read_validity(const call *c, const struct ArrowArray *a,
                         const uint8_t **out) {
  *out = NULL;
  if (a->null_count == 0 || a->length == 0) return 0;
  *out = a->buffers[0];
  if (*out == NULL && a->null_count > 0) {
    return malformed(c, "a validity buffer beside nulls");
  }
  return 0;
}

static int view_values(const call *c, const struct ArrowArray *a, int64_t skipped,
                       din_values *v) {
  const int is_text =
      v->type == DIN_BYTES32 || v->type == DIN_BYTES64 || v->type == DIN_BYTES_VIEW;
  const int64_t min_buffers = v->type == DIN_NULL ? 0 : is_text ? 3 : 2;
  if (check_array(c, a, min_buffers, skipped)) return -1;
  v->length = a->length - skipped;
  v->offset = a->offset + skipped;
  if (v->type == DIN_NULL) return 0;
  if (v->width > 0 && a->length + a->offset > INT64_MAX / v->width) {
    return malformed(c, "a length and an offset that fit");
  }
  if (read_validity(c, a, &v->validity)) return -1;
  v->data = a->buffers[1];
  if (v->length > 0 && v->data == NULL) return malformed(c, "a data buffer");
  if (v->type == DIN_BYTES_VIEW) {
    v->num_buffers = a->n_buffers - 3;
    v->buffers = a->buffers + 2;
    v->buffer_sizes = a->buffers[a->n_buffers - 1];
    if (v->num_buffers > 0 && v->buffer_sizes == NULL) {
      return malformed(c, "the sizes of the view's buffers");
    }
  } else if (is_text) {
    v->bytes = a->buffers[2];
  }
  return 0;
}

/* How lists of a format lie in memory, or DIN_SCALAR. */
static int32_t nesting_of(const char *text) {
  return text == NULL                   ? DIN_SCALAR
         : strcmp(text, "+l") == 0      ? DIN_LIST32
         : strcmp(text, "+L") == 0      ? DIN_LIST64
         : strcmp(text, "+vl") == 0     ? DIN_LIST_VIEW32
         : strcmp(text, "+vL") == 0     ? DIN_LIST_VIEW64
         : strncmp(text, "+w:", 3) == 0 ? DIN_FIXED_LIST
                                        : DIN_SCALAR;
}

static int view_lists(const call *c, const struct ArrowSchema *s,
                      const struct ArrowArray *a, int64_t skipped, din_column *out) {
  const int is_view =
      out->nesting == DIN_LIST_VIEW32 || out->nesting == DIN_LIST_VIEW64;
  const int is_fixed = out->nesting == DIN_FIXED_LIST;
  if (is_fixed) {
    const char *end;
    out->list_size = read_number(s->format + 3, &end);
    if (out->list_size < 0 || *end != '\0') return malformed(c, "a list size");
  }
  if (check_array(c, a, is_view ? 3 : is_fixed ? 1 : 2, skipped)) return -1;
  out->offset = a->offset + skipped;
  if (read_validity(c, a, &out->validity)) return -1;
  if (is_fixed || out->num_rows == 0) return 0;
  out->offsets = a->buffers[1];
  if (out->offsets == NULL) return malformed(c, "an offsets buffer");
  if (is_view) {
    out->sizes = a->buffers[2];
    if (out->sizes == NULL) return malformed(c, "a sizes buffer");
  }
  return 0;
}

/* View rows of an array of scalars or lists, unchecked. */
static int view_rows(const call *c, const struct ArrowSchema *s,
                     const struct ArrowArray *a, int64_t skipped, int64_t num_rows,
                     din_view *out) {
  din_column *column = &out->column;
  const struct ArrowSchema *leaf = s;
  extension of = read_extension(s->metadata);
  column->num_rows = num_rows;
  column->nesting = s->dictionary == NULL ? nesting_of(s->format) : DIN_SCALAR;
  if (column->nesting != DIN_SCALAR) {
    out->is_list = 1;
    if (of.name[0] != '\0' && !is_vector(&of)) {
      name_extension(&of, out);
      return 0;
    }
    if (view_lists(c, s, a, skipped, column)) return -1;
    if (s->n_children != 1 || s->children == NULL || s->children[0] == NULL ||
        a->n_children != 1 || a->children == NULL || a->children[0] == NULL) {
      return malformed(c, "one child of a list");
    }
    leaf = s = s->children[0];
    a = a->children[0];
    skipped = 0;
    of = read_extension(s->metadata);
  }
  din_values *values = &column->values;
  if (s->dictionary != NULL) {
    din_view indices = {0};
    if (read_leaf(c, s, NULL, &indices, values)) return -1;
    if (values->type < DIN_INT8 || values->type > DIN_UINT64) {
      return malformed(c, "integer dictionary indices");
    }
    leaf = s->dictionary;
    if (of.name[0] == '\0') of = read_extension(leaf->metadata);
    column->has_dictionary = 1;
  }
  din_values *leaf_values = column->has_dictionary ? &column->dictionary : values;
  if (read_leaf(c, leaf, &of, out, leaf_values)) return -1;
  if (column->has_dictionary && leaf->dictionary != NULL) {
    out->kind = DIN_KIND_OTHER;
    snprintf(out->type_name, sizeof out->type_name, "dictionary of dictionary");
  }
  if (num_rows == 0 || out->kind == DIN_KIND_OTHER) return 0;
  if (column->has_dictionary && out->kind == DIN_KIND_NULL) {
    column->has_dictionary = 0;
    values->type = DIN_NULL;
  }
  if (view_values(c, a, skipped, values)) return -1;
  if (!column->has_dictionary) return 0;
  if (a->dictionary == NULL) return malformed(c, "a dictionary");
  return view_values(c, a->dictionary, 0, leaf_values);
}

/* Make of the lists of a dictionary a column whose rows are those that indices name. */
static int look_rows_up(const call *c, const din_values *indices, int64_t num_rows,
                        din_view *out) {
  const din_column lists = out->column;
  const size_t numbers = ((size_t)num_rows + 1) * sizeof(int64_t);
  int64_t *offsets = calloc(1, 2 * numbers + (size_t)num_rows / 8 + 1);
  if (offsets == NULL) {
    return din_say(c->error, c->error_size, "memory for its lists", "none", c->name, -1,
                   "");
  }
  out->memory = offsets;
  int64_t *sizes = offsets + num_rows + 1;
  uint8_t *valid = (uint8_t *)(sizes + num_rows + 1);
  for (int64_t row = 0; row < num_rows; ++row) {
    if (!din_is_valid(indices, row)) continue;
    const int64_t index = din_index_at(indices, row);
    if (index < 0 || index >= lists.num_rows) {
      return din_say(c->error, c->error_size, "indices inside their dictionary",
                     "others", c->name, row, "");
    }
    if (lists.validity != NULL && !din_bit(lists.validity, index + lists.offset)) {
      continue;
    }
    din_row_bounds(&lists, index, &offsets[row], &sizes[row]);
    valid[row >> 3] |= (uint8_t)(1 << (row & 7));
  }
  out->column.nesting = DIN_LIST_VIEW64;
  out->column.num_rows = num_rows;
  out->column.offset = 0;
  out->column.validity = valid;
  out->column.offsets = offsets;
  out->column.sizes = sizes;
  return 0;
}

int din_view_arrow(const struct ArrowSchema *s, const struct ArrowArray *a,
                   int64_t skipped, int64_t num_rows, const char *name,
                   const din_block_isa *isa, din_view *out, char *error,
                   size_t error_size) {
  const call c = {name, error, error_size};
  memset(out, 0, sizeof *out);
  out->is_given = 1;
  if (s == NULL || a == NULL) return malformed(&c, "a child of every column");
  if (num_rows < 0 || skipped < 0 || a->length < 0 || skipped > a->length - num_rows) {
    return malformed(&c, "as many rows as the table has");
  }
  din_values indices = {0};
  const int has_lists =
      s->dictionary != NULL && nesting_of(s->dictionary->format) != DIN_SCALAR;
  if (has_lists) {
    din_view of = {0};
    if (read_leaf(&c, s, NULL, &of, &indices)) return -1;
    if (indices.type < DIN_INT8 || indices.type > DIN_UINT64) {
      return malformed(&c, "integer dictionary indices");
    }
    if (a->dictionary == NULL) return malformed(&c, "a dictionary");
    if (view_values(&c, a, skipped, &indices)) return -1;
    s = s->dictionary;
    a = a->dictionary;
    skipped = 0;
  }
  const int64_t rows = has_lists ? a->length : num_rows;
  if (rows < 0) return malformed(&c, "a length and an offset that fit");
  if (view_rows(&c, s, a, skipped, rows, out)) return -1;
  if (num_rows == 0 || out->kind == DIN_KIND_OTHER) {
    /* Nothing is read of it. */
    memset(&out->column, 0, sizeof out->column);
    out->column.num_rows = out->column.values.length = num_rows;
    return 0;
  }
  if (din_check_view(out, name, isa, error, error_size)) return -1;
  return has_lists ? look_rows_up(&c, &indices, num_rows, out) : 0;
}
