/*
 * A JSON text (RFC 8259) as a tree. Texts may come from anyone: depth and size are
 * limited, and every fault is an error with its place in bytes.
 */
#ifndef DIN_JSON_H
#define DIN_JSON_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIN_JSON_MAX_DEPTH = 64 };
#define DIN_JSON_MAX_BYTES (INT64_C(1) << 31)

enum {
  DIN_JSON_NULL,
  DIN_JSON_FALSE,
  DIN_JSON_TRUE,
  DIN_JSON_NUMBER,
  DIN_JSON_STRING,
  DIN_JSON_LIST,
  DIN_JSON_TABLE,
  DIN_JSON_NAN, /* this and the next: no JSON, but what Python's json writes */
  DIN_JSON_INFINITY
};

/*
 * One value. Of members of a table, `key` is set. A whole number that 64 bits hold has
 * `is_whole`, its bits in `whole`, and `is_large` when only uint64 holds it.
 */
typedef struct din_json {
  int32_t kind;
  int16_t is_whole;
  int16_t is_large;
  uint64_t whole;
  double number;
  const char *text; /* of a string, decoded and ended by 0; of a number, of NaN and
                       Infinity, as written */
  int64_t size;     /* bytes of text; elements or members */
  const char *key;  /* ended by 0; NULL in lists */
  int64_t key_size;
  struct din_json *first; /* of the elements or members */
  struct din_json *next;
} din_json;

typedef struct din_json_document din_json_document;

/*
 * Read a text; NULL and a sentence in `error` when it is no JSON, or memory is out. The
 * tree lives until din_json_free.
 */
din_json_document *din_json_read(const char *text, int64_t size, char *error,
                                 uint64_t error_size);
void din_json_free(din_json_document *document);
const din_json *din_json_root(const din_json_document *document);

/* Read a number as JSON writes it, in any locale; NaN when it is none. @pre text[size] is 0 */
double din_json_double(const char *text, int64_t size);

/* Whether a text, which may hold 0, is `wanted`. */
int din_json_is(const char *text, int64_t size, const char *wanted);

/* The last member of that key, or NULL; NULL for what is no table. */
const din_json *din_json_member(const din_json *table, const char *key);

#ifdef __cplusplus
}
#endif

#endif /* DIN_JSON_H */
