/* Views of columns: checked, and read as a field's dtype: columns.py without Python. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "spec.h"

int din_check_view(din_view *view, const char *name, const din_block_isa *isa,
                   char *error, size_t error_size) {
  din_column *c = &view->column;
  int64_t first = 0, stop = 0;
  const int64_t row = din_check_rows(c, &first, &stop);
  if (row >= 0) {
    const int is_list = c->nesting != DIN_SCALAR;
    return din_say(
        error, error_size,
        is_list ? "list offsets that rise inside their values" : "a value of each row",
        "others", name, row, "");
  }
  const int64_t bad = c->has_dictionary
                          ? din_check_indices(c, first, stop, isa)
                          : din_check_values(&c->values, first, stop, isa);
  if (bad < 0) return 0;
  char where[80];
  snprintf(where, sizeof where, "It is element %" PRId64 ".", bad);
  return din_say(error, error_size,
                 c->has_dictionary ? "indices inside their dictionary"
                                   : "values inside their buffers",
                 "others", name, -1, where);
}

static int refuse_type(const din_encoding *e, int32_t source, int32_t reads,
                       int32_t is_list) {
  static const char *const plural[] = {"strings", "integers", "numbers"};
  char rule[60], got[80];
  snprintf(rule, sizeof rule, "a column of %s%s", is_list ? "lists of " : "",
           plural[reads]);
  din_show_type(&e->views[source], got, sizeof got);
  return din_say(e->error, e->error_size, rule, got, e->features->sources[source].name,
                 -1, "");
}

/* Refuse strings that are UUIDs, but no key that a column of UUIDs would have. */
static int check_uuids(const din_encoding *e, const din_view *view, int32_t uuid_as,
                       const char *name) {
  const din_column *c = &view->column;
  const int as_text = uuid_as == DIN_UUID_AS_TEXT;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t start, count;
    din_row_bounds(c, row, &start, &count);
    for (int64_t i = start; i < start + count; ++i) {
      int64_t at = i;
      const din_values *v = din_resolve(c, &at);
      if (v == NULL) continue;
      const din_key key = din_key_at(v, v->type, at);
      const int is_raw = as_text && view->is_binary && key.num_bytes == DIN_UUID_BYTES;
      if (!is_raw && !din_is_uuid_text(key, as_text)) continue;
      char got[120];
      din_show_value(c, i, got, sizeof got);
      const char *rule = !as_text ? "UUIDs of 16 bytes"
                         : is_raw ? "UUIDs"
                                  : "UUIDs in lower case";
      const char *fix =
          !as_text
              ? "Cast the column to UUID, or say uuid_as = \"text\" in the encoder."
          : is_raw ? "Cast the column to UUID, or to binary of a fixed size."
                   : "Cast the column to lower case.";
      return din_say(e->error, e->error_size, rule, got, name, row, fix);
    }
  }
  return 0;
}

int din_require(const din_encoding *e, int32_t source, int32_t reads, int32_t is_list,
                int32_t uuid_as, din_column *out) {
  const din_view *view = &e->views[source];
  const int32_t kind = view->kind;
  const int is_null = kind == DIN_KIND_NULL;
  const int is_number =
      kind == DIN_KIND_INT || kind == DIN_KIND_FLOAT || kind == DIN_KIND_DECIMAL;
  const int right_kind =
      is_null || (reads == DIN_READS_BYTES ? kind == DIN_KIND_STRING : is_number);
  const int right_shape = view->is_list == is_list || (is_null && !view->is_list);
  *out = view->column;
  if (right_kind && right_shape) {
    if (kind != DIN_KIND_STRING || uuid_as == DIN_UUID_REFUSED) return 0;
    return check_uuids(e, view, uuid_as, e->features->sources[source].name);
  }
  const int is_readable =
      uuid_as == DIN_UUID_AS_BYTES ||
      (uuid_as == DIN_UUID_AS_TEXT && view->width == DIN_UUID_BYTES);
  if (kind == DIN_KIND_FIXED && reads == DIN_READS_BYTES && right_shape &&
      is_readable) {
    din_values *v = out->has_dictionary ? &out->dictionary : &out->values;
    if (uuid_as == DIN_UUID_AS_TEXT) v->type = DIN_UUID_TEXT;
    return 0;
  }
  const int is_other = kind == DIN_KIND_OTHER;
  if (is_other ? out->num_rows == 0 : din_count_valid_rows(out) == 0) {
    const int64_t num_rows = out->num_rows;
    memset(out, 0, sizeof *out);
    out->num_rows = out->values.length = num_rows;
    return 0;
  }
  int64_t first, stop;
  if (right_shape && is_list && !is_other && din_check_rows(out, &first, &stop) < 0 &&
      din_count_valid(out, first, stop) == 0) {
    out->has_dictionary = 0;
    out->values.type = DIN_NULL;
    out->values.validity = NULL;
    return 0;
  }
  return refuse_type(e, source, reads, is_list);
}
