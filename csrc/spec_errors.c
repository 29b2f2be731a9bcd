/* What errors say, in the words of din_infer's own. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"

int din_say(char *error, size_t error_size, const char *rule, const char *got,
            const char *column, int64_t row, const char *fix) {
  char where[40] = "";
  if (row >= 0) snprintf(where, sizeof where, ", row %" PRId64, row);
  snprintf(error, error_size, "expected %s, got %s - at `%s`%s%s%s", rule, got, column,
           where, fix[0] ? ". " : "", fix);
  return -1;
}

/* The shortest digits that are read as the same double, as Python writes them. */
static void show_double(double x, char *out, size_t size) {
  if (isnan(x)) {
    snprintf(out, size, "NaN");
    return;
  }
  if (isinf(x)) {
    snprintf(out, size, "%s", x < 0 ? "-inf" : "inf");
    return;
  }
  for (int digits = 1; digits <= 17; ++digits) {
    snprintf(out, size, "%.*g", digits, x);
    if (digits == 17 || strtod(out, NULL) == x) break;
  }
  if (strspn(out, "-0123456789") == strlen(out)) strncat(out, ".0", size - 4);
}

/* A text in quotes, cut where it is long; bytes that do not print as \xhh. */
static void show_text(din_key key, char *out, size_t size) {
  size_t used = 0;
  out[used++] = '\'';
  for (int64_t i = 0; i < key.num_bytes && used + 12 < size; ++i) {
    const uint8_t c = key.data[i];
    if (i == 60) {
      used += (size_t)snprintf(out + used, size - used, "...");
      break;
    }
    if (c < 0x20 || c == 0x7F) {
      used += (size_t)snprintf(out + used, size - used, "\\x%02x", c);
    } else {
      out[used++] = (char)c;
    }
  }
  out[used++] = '\'';
  out[used] = '\0';
}

void din_show_value(const din_column *c, int64_t i, char *out, size_t size) {
  const din_values *v = i < 0 ? NULL : din_resolve(c, &i);
  snprintf(out, size, "null");
  if (v == NULL) return;
  const int64_t at = i + v->offset;
  if (v->type >= DIN_BYTES32) {
    const din_key key = din_key_at(v, v->type, i);
    if (v->type == DIN_UUID_TEXT) {
      char text[DIN_UUID_LETTERS + 1] = "";
      din_format_uuid(key.data, (uint8_t *)text);
      snprintf(out, size, "'%s'", text);
    } else {
      show_text(key, out, size);
    }
  } else if (v->type == DIN_FLOAT64) {
    show_double(din_read_f64(v->data, at), out, size);
  } else if (v->type == DIN_FLOAT32) {
    show_double((double)din_read_f32(v->data, at), out, size);
  } else if (v->type == DIN_FLOAT16) {
    show_double(din_read_f16(v->data, at), out, size);
  } else if (v->type == DIN_UINT64) {
    snprintf(out, size, "%" PRIu64, din_read_ui64(v->data, at));
  } else if (v->type == DIN_BOOL) {
    snprintf(out, size, "%s", din_bit(v->data, at) ? "True" : "False");
  } else if (v->type == DIN_BOOL8) {
    snprintf(out, size, "%s", din_read_bool8(v->data, at) ? "True" : "False");
  } else if (v->type >= DIN_DECIMAL32 && v->type <= DIN_DECIMAL256) {
    snprintf(out, size, "a decimal");
  } else {
    snprintf(out, size, "%" PRId64, din_index_at(v, i));
  }
}

void din_show_type(const din_view *view, char *out, size_t size) {
  snprintf(out, size, "%s%s", view->is_list ? "lists of " : "", view->type_name);
}

int din_say_fault(const din_encoding *e, const din_column *column, const char *name,
                  const din_tally *tally, const char *rule, const char *type_name) {
  char got[120], exact[120];
  din_show_value(column, tally->bad, got, sizeof got);
  switch (tally->fault) {
    case DIN_NOT_WHOLE:
      rule = "a whole number";
      break;
    case DIN_NOT_EXACT:
      snprintf(exact, sizeof exact, "a whole number that %s holds exactly", type_name);
      rule = exact;
      break;
    case DIN_BEYOND_INT64:
      rule = "a 64-bit signed integer";
      break;
    case DIN_BEYOND_64:
      rule = "an integer in [-2**63, 2**64)";
      break;
    case DIN_BEYOND_INT32:
      rule = "an integer in [-2**31, 2**31)";
      break;
    case DIN_TOO_LONG:
      snprintf(exact, sizeof exact, "a key of at most %d bytes with its prefix",
               DIN_MAX_PREFIXED);
      rule = exact;
      snprintf(got, sizeof got, "a longer one");
      break;
    case DIN_IS_MISSING:
      rule = "a finite number";
      break;
    case DIN_WRONG_COUNT:
      snprintf(got, sizeof got, "%" PRId64, tally->count);
      break;
    default:
      break;
  }
  return din_say(e->error, e->error_size, rule, got, name, tally->bad_row, "");
}
