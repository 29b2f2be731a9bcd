/* What the parts of the spec's parser share: spec.c, spec_values.c, spec_encoders.c. */
#ifndef DIN_SPEC_PARSING_H
#define DIN_SPEC_PARSING_H

#include "json.h"
#include "spec.h"

enum { DIN_PLACE = 200 };

typedef struct {
  din_features *features;
  const din_given_keys *given;
  int32_t num_given;
  char *error;
  size_t error_size;
  int failed;
} din_parser;

/* A table of the spec, and where it stands. */
typedef struct {
  const din_json *json;
  char place[DIN_PLACE];
} din_section;

/* What a field's section says of its ids; `columns` > 0: of so many in a chain. */
typedef struct {
  const char *type; /* "hash", .. */
  int32_t dtype;    /* DIN_READS_.. of the first column */
  int64_t rows;
  int32_t uuid_as;
  din_encoder encoder; /* compiled for `dtype` */
  int32_t num_columns;
  struct din_chained *columns;
} din_embedded;

typedef struct din_chained {
  const char *name;
  int32_t dtype;
  int32_t uuid_as;
  din_encoder encoder;
} din_chained;

/* Record an error at a place, unless there is one; returns 0. */
int din_parse_fail(din_parser *p, const din_section *s, const char *key,
                   const char *rule, const din_json *got);

din_section din_section_at(const din_section *s, const char *key, const din_json *json);

/* Values by kind. A missing one is `otherwise`, where that is given, else an error. */
const din_json *din_take(din_parser *p, const din_section *s, const char *key,
                         int32_t kind, int is_needed);
const char *din_take_text(din_parser *p, const din_section *s, const char *key,
                          const char *otherwise, int is_needed);
int din_take_choice(din_parser *p, const din_section *s, const char *key,
                    const char *const *choices, int otherwise);
int din_take_flag(din_parser *p, const din_section *s, const char *key, int otherwise);
/* A positive number below 2^31; `otherwise` below 0: it is needed. */
int64_t din_take_size(din_parser *p, const din_section *s, const char *key,
                      int64_t otherwise);
double din_take_number(din_parser *p, const din_section *s, const char *key,
                       double otherwise);
/* Refuse keys that are not among `known`, which ends with NULL. */
void din_check_keys(din_parser *p, const din_section *s, const char *const *known);

/* Copy a string of the JSON, which is freed before the features. */
const char *din_own_text(din_parser *p, const char *text, int64_t size);

/* The `encoder` of a section, for a field of `dtype` (-1: what the encoder says). */
void din_parse_encoder(din_parser *p, const din_section *s, int32_t dtype,
                       din_embedded *out);
/* `int_as`, `float_as` and `uuid_as` of one of the columns of a chain. */
void din_parse_key_form(din_parser *p, const din_section *s, int32_t dtype,
                        const din_embedded *of, din_chained *out);
void din_parse_scale(din_parser *p, const din_section *s, din_part *part);

extern const char *const DIN_DTYPES[];

#endif /* DIN_SPEC_PARSING_H */
