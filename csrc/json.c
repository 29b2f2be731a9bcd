#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

enum { NODES = 256 };

typedef struct block {
  struct block *next;
  din_json nodes[NODES];
} block;

struct din_json_document {
  block *blocks;
  int32_t used; /* of the first block's nodes */
  char *texts;  /* decoded ones, ended by 0 each */
  din_json *root;
};

typedef struct {
  din_json_document *document;
  const char *at;
  const char *stop;
  char *texts;
  const char *fault;
} reader;

static din_json *fail(reader *r, const char *fault) {
  if (r->fault == NULL) r->fault = fault;
  return NULL;
}

static din_json *new_node(reader *r, int32_t kind) {
  din_json_document *d = r->document;
  if (d->blocks == NULL || d->used == NODES) {
    block *more = calloc(1, sizeof *more);
    if (more == NULL) return fail(r, "memory for its values");
    more->next = d->blocks;
    d->blocks = more;
    d->used = 0;
  }
  din_json *node = &d->blocks->nodes[d->used++];
  node->kind = kind;
  return node;
}

static void skip_blanks(reader *r) {
  while (r->at < r->stop &&
         (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
    ++r->at;
  }
}

static int takes(reader *r, char wanted) {
  skip_blanks(r);
  if (r->at == r->stop || *r->at != wanted) return 0;
  ++r->at;
  return 1;
}

static int read_hex(reader *r, uint32_t *out) {
  *out = 0;
  if (r->stop - r->at < 4) return 0;
  for (int i = 0; i < 4; ++i) {
    const char c = *r->at++;
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return 0;
    *out = *out << 4 | (uint32_t)digit;
  }
  return 1;
}

static char *put_utf8(char *to, uint32_t c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xC0 | c >> 6);
    *to++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (char)(0xE0 | c >> 12);
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  } else {
    *to++ = (char)(0xF0 | c >> 18);
    *to++ = (char)(0x80 | (c >> 12 & 63));
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  }
  return to;
}

/* Decode a string, behind its first quote. It is never longer than as written. */
static int read_text(reader *r, const char **text, int64_t *size) {
  static const char escapes[] = "\"\\/bfnrt";
  static const char meant[] = "\"\\/\b\f\n\r\t";
  char *to = r->texts;
  *text = to;
  while (r->at < r->stop && *r->at != '"') {
    const char c = *r->at++;
    if ((unsigned char)c < 0x20) return fail(r, "no control character"), 0;
    if (c != '\\') {
      --r->at;
      const int64_t more = din_utf8_size(r->at, r->stop - r->at);
      if (more == 0) return fail(r, "a character of UTF-8"), 0;
      memcpy(to, r->at, (size_t)more);
      to += more;
      r->at += more;
      continue;
    }
    if (r->at == r->stop) break;
    const char escape = *r->at++;
    const char *known = escape == '\0' ? NULL : strchr(escapes, escape);
    if (known != NULL) {
      *to++ = meant[known - escapes];
      continue;
    }
    uint32_t unit, low;
    if (escape != 'u' || !read_hex(r, &unit)) return fail(r, "an escape"), 0;
    if (unit >= 0xDC00 && unit < 0xE000) return fail(r, "a whole character"), 0;
    if (unit >= 0xD800 && unit < 0xDC00) {
      if (r->stop - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') {
        return fail(r, "a whole character"), 0;
      }
      r->at += 2;
      if (!read_hex(r, &low) || low < 0xDC00 || low >= 0xE000) {
        return fail(r, "a whole character"), 0;
      }
      unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }
    to = put_utf8(to, unit);
  }
  if (r->at == r->stop) return fail(r, "the end of a string"), 0;
  ++r->at;
  *size = to - *text;
  *to++ = '\0';
  r->texts = to;
  return 1;
}

/* strtod reads the decimal point of the process's locale. */
double din_json_double(const char *text, int64_t size) {
  char *end;
  const double plain = strtod(text, &end);
  if (end == text + size) return plain;
  char local[400];
  if (size >= (int64_t)sizeof local) return (double)NAN;
  memcpy(local, text, (size_t)size + 1);
  char *point = strchr(local, '.');
  if (point != NULL) *point = *localeconv()->decimal_point;
  const double found = strtod(local, &end);
  return end == local + size ? found : (double)NAN;
}

static din_json *read_number(reader *r) {
  const char *begin = r->at;
  int is_whole = 1;
#define DIGITS(r) (r->at < r->stop && *r->at >= '0' && *r->at <= '9')
  if (*r->at == '-') ++r->at;
  if (!DIGITS(r)) return fail(r, "a value");
  if (*r->at == '0') {
    ++r->at;
  } else {
    while (DIGITS(r)) ++r->at;
  }
  if (r->at < r->stop && *r->at == '.') {
    is_whole = 0;
    ++r->at;
    if (!DIGITS(r)) return fail(r, "digits behind a point");
    while (DIGITS(r)) ++r->at;
  }
  if (r->at < r->stop && (*r->at == 'e' || *r->at == 'E')) {
    is_whole = 0;
    ++r->at;
    if (r->at < r->stop && (*r->at == '+' || *r->at == '-')) ++r->at;
    if (!DIGITS(r)) return fail(r, "digits of an exponent");
    while (DIGITS(r)) ++r->at;
  }
#undef DIGITS
  din_json *node = new_node(r, DIN_JSON_NUMBER);
  if (node == NULL) return NULL;
  node->text = r->texts;
  node->size = r->at - begin;
  memcpy(r->texts, begin, (size_t)node->size);
  r->texts += node->size;
  *r->texts++ = '\0';
  node->number = din_json_double(node->text, node->size);
  const int is_negative = *begin == '-';
  const uint64_t most = is_negative ? UINT64_C(1) << 63 : UINT64_MAX;
  uint64_t whole = 0;
  for (const char *c = begin + is_negative; is_whole && c < r->at; ++c) {
    const uint64_t digit = (uint64_t)(*c - '0');
    is_whole = whole <= (most - digit) / 10;
    whole = whole * 10 + digit;
  }
  node->is_whole = (int16_t)is_whole;
  node->is_large = is_whole && !is_negative && whole > (uint64_t)INT64_MAX;
  node->whole = is_negative ? 0 - whole : whole;
  return node;
}

static din_json *read_value(reader *r, int depth);

/* Read elements, or members, up to the closing sign. */
static din_json *read_items(reader *r, int depth, int32_t kind, char closing) {
  din_json *node = new_node(r, kind);
  if (node == NULL) return NULL;
  if (depth == DIN_JSON_MAX_DEPTH) return fail(r, "less nesting");
  din_json **last = &node->first;
  if (takes(r, closing)) return node;
  do {
    const char *key = NULL;
    int64_t key_size = 0;
    if (kind == DIN_JSON_TABLE) {
      if (!takes(r, '"')) return fail(r, "a key");
      if (!read_text(r, &key, &key_size)) return NULL;
      if (!takes(r, ':')) return fail(r, "a colon");
    }
    din_json *item = read_value(r, depth + 1);
    if (item == NULL) return NULL;
    item->key = key;
    item->key_size = key_size;
    *last = item;
    last = &item->next;
    ++node->size;
  } while (takes(r, ','));
  return takes(r, closing) ? node : fail(r, "a comma, or the end of a list or table");
}

static din_json *read_value(reader *r, int depth) {
  static const struct {
    const char *word;
    int32_t kind;
  } words[] = {{"null", DIN_JSON_NULL},         {"false", DIN_JSON_FALSE},
               {"true", DIN_JSON_TRUE},         {"NaN", DIN_JSON_NAN},
               {"Infinity", DIN_JSON_INFINITY}, {"-Infinity", DIN_JSON_INFINITY}};
  skip_blanks(r);
  if (r->at == r->stop) return fail(r, "a value");
  if (takes(r, '{')) return read_items(r, depth, DIN_JSON_TABLE, '}');
  if (takes(r, '[')) return read_items(r, depth, DIN_JSON_LIST, ']');
  if (takes(r, '"')) {
    din_json *node = new_node(r, DIN_JSON_STRING);
    return node && read_text(r, &node->text, &node->size) ? node : NULL;
  }
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i) {
    const size_t size = strlen(words[i].word);
    if ((size_t)(r->stop - r->at) >= size && memcmp(r->at, words[i].word, size) == 0) {
      r->at += size;
      din_json *node = new_node(r, words[i].kind);
      if (node != NULL && words[i].kind > DIN_JSON_TRUE) {
        node->text = words[i].word;
        node->size = (int64_t)size;
      }
      return node;
    }
  }
  return read_number(r);
}

din_json_document *din_json_read(const char *text, int64_t size, char *error,
                                 uint64_t error_size) {
  if (size < 0 || size > DIN_JSON_MAX_BYTES) {
    snprintf(error, error_size, "expected JSON of at most 2^31 bytes, got more");
    return NULL;
  }
  din_json_document *d = calloc(1, sizeof *d);
  /* A number is followed by a byte that no text takes, but for the last one. */
  if (d != NULL) d->texts = malloc((size_t)size + 2);
  if (d == NULL || d->texts == NULL) {
    free(d);
    snprintf(error, error_size, "expected memory for the JSON, got none");
    return NULL;
  }
  reader r = {d, text, text + size, d->texts, NULL};
  d->root = read_value(&r, 0);
  skip_blanks(&r);
  if (r.fault == NULL && r.at != r.stop) fail(&r, "the end");
  if (r.fault == NULL) return d;
  snprintf(error, error_size, "expected JSON with %s at byte %lld, got something else",
           r.fault, (long long)(r.at - text));
  din_json_free(d);
  return NULL;
}

void din_json_free(din_json_document *d) {
  if (d == NULL) return;
  for (block *next, *b = d->blocks; b != NULL; b = next) {
    next = b->next;
    free(b);
  }
  free(d->texts);
  free(d);
}

const din_json *din_json_root(const din_json_document *d) { return d->root; }

int din_json_is(const char *text, int64_t size, const char *wanted) {
  return (int64_t)strlen(wanted) == size && memcmp(text, wanted, (size_t)size) == 0;
}

const din_json *din_json_member(const din_json *table, const char *key) {
  const din_json *found = NULL;
  if (table == NULL || table->kind != DIN_JSON_TABLE) return NULL;
  for (const din_json *m = table->first; m != NULL; m = m->next) {
    if (din_json_is(m->key, m->key_size, key)) found = m;
  }
  return found;
}
