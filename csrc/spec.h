/*
 * A feature spec, as a model holds it, made ready to encode: JSON -> which columns are
 * read, by which encoders, to which inputs of the graph; and columns -> those inputs.
 *
 * What din_infer/spec_parsing.py and encode.py do in Python, for callers without it, over
 * the same kernels. The spec is one that Python wrote: what could crash, or would give
 * other ids, is refused here; what is merely of no use (a name that is there twice) there.
 * Read-only once made, so that threads may share it.
 *
 * Letters: B requests, N candidates, R rows of either side, T positions, K values.
 */
#ifndef DIN_SPEC_H
#define DIN_SPEC_H

#include <stddef.h>
#include <stdint.h>

#include "encode.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIN_USER, DIN_CANDIDATE };
enum { DIN_UUID_REFUSED, DIN_UUID_AS_BYTES, DIN_UUID_AS_TEXT };
enum { DIN_PART_FIELD, DIN_PART_LISTS, DIN_PART_DENSE };
enum { DIN_FLOAT_OUTPUT, DIN_INT64_OUTPUT };

/* How a list is written where its column is text. */
enum { DIN_TEXT_IS_NO_LIST, DIN_TEXT_SEPARATED, DIN_TEXT_JSON };

/* One column of one side; parts that read it alike share it. */
typedef struct {
  const char *name;
  int32_t side;
  int32_t reads;     /* DIN_READS_.. */
  int32_t is_list;   /* of any length */
  int32_t is_length; /* of lists: numbers that need no validity */
  int64_t size;      /* K of a dense field, else 1 */
  int32_t is_optional;
  int32_t is_mixed; /* parts read it in ways that no one tensor serves */
  int32_t written;  /* DIN_TEXT_.. */
  din_key separator;
} din_source;

/* A column as one field reads it. */
typedef struct {
  int32_t source;
  int32_t reads;
  int32_t uuid_as;
  din_encoder encoder;
} din_reading;

/* The ids of one input: of one column, or of several that are hashed in a chain. */
typedef struct {
  const char *name;
  int32_t first_reading, num_readings;
  int32_t output;
  int64_t num_rows; /* of the table */
} din_ids;

typedef struct {
  int32_t kind;
  int32_t side;
  const char *name;
  int32_t first_ids, num_ids; /* of a field 1, of lists those in parallel */
  /* of lists */
  int64_t max_len;
  int32_t newest_first;
  int32_t is_attended;
  int32_t has_pad;
  int32_t drops_pad;
  int32_t checks_padding; /* that a list of length 0 holds nothing but padding */
  din_pad_value pad;
  int32_t lengths_source; /* -1: none */
  int32_t lengths_output;
  /* of dense values */
  int32_t source, output;
  int64_t dim;
  int32_t has_missing;
  double missing;
  int32_t has_scale;
  din_scale scale;
} din_part;

typedef struct {
  const char *name;
  int32_t type; /* DIN_.._OUTPUT */
  int32_t side;
  int32_t rank; /* [R], or [R, T], [R, K] */
} din_output_kind;

/* Keys of a vocabulary that the caller keeps, in place of those in the JSON. */
typedef struct {
  const uint8_t *bytes;
  const int64_t *offsets; /* [num_keys + 1] */
  const int64_t *ints;    /* or these */
  int64_t num_keys;
} din_given_keys;

typedef struct din_features {
  din_source *sources;
  int32_t num_sources;
  din_reading *readings;
  int32_t num_readings;
  din_ids *ids;
  int32_t num_ids;
  din_part *parts;
  int32_t num_parts;
  din_output_kind *outputs; /* in the order of the graph's inputs */
  int32_t num_outputs;
  int32_t num_given; /* vocabularies that the JSON names by a number */
  const din_block_isa *isa;
  struct din_owned *owned;
} din_features;

/*
 * Read a spec; NULL and a sentence in `error` when it is none.
 *
 * Where an encoder says `values = k`, a number, given[k] has its keys, which are to
 * outlive the features.
 */
din_features *din_features_read(const char *json, int64_t size,
                                const din_given_keys *given, int32_t num_given,
                                char *error, size_t error_size);
void din_features_free(din_features *features);

/* ---------------------------------------------------------------------- columns */

enum {
  DIN_KIND_NULL,
  DIN_KIND_STRING,
  DIN_KIND_INT,
  DIN_KIND_FLOAT,
  DIN_KIND_DECIMAL,
  DIN_KIND_FIXED,
  DIN_KIND_OTHER
};

/* The column of a source, checked by din_check_view. */
typedef struct {
  din_column column;
  int32_t is_given; /* not so: an optional one that the batch lacks */
  int32_t kind;
  int32_t is_list;
  int32_t is_binary; /* bytes that need not be text */
  int32_t width;     /* of DIN_KIND_FIXED */
  char type_name[48];
  void *memory; /* that the column refers to, to be freed; or NULL */
} din_view;

/* Refuse what would be read outside its buffers; 0, or -1 and a sentence. */
int din_check_view(din_view *view, const char *name, const din_block_isa *isa,
                   char *error, size_t error_size);

/*
 * One batch. `views` has one of each source; `num_rows` B and N. `output` gives memory
 * for an output of `dims`, once each, or NULL, then without a sentence of its own.
 * `share` runs `run` for each of `count` parts, in any order and by any threads.
 */
typedef struct {
  const din_features *features;
  const din_view *views;
  int64_t num_rows[2];
  void *context;
  void *(*output)(void *context, int32_t index, const int64_t *dims);
  void (*share)(void *context, void (*run)(void *data, int64_t part), void *data,
                int64_t count);
  char *error;
  size_t error_size;
} din_encoding;

/* Encode a batch: 0, or -1 and a sentence in `error`, which names column and row. */
int din_features_encode(const din_encoding *encoding);

/* ------------------------------------------------- shared by the files of a spec */

/* Memory that is 0 and freed with the features; NULL when there is none. */
void *din_own(din_features *features, uint64_t num_bytes);
/* 0, and all of it freed, when there is no memory. */
int din_own_vocab(din_features *features, din_vocab *vocab);

/* "expected <rule>, got <got> - at `<column>`, row <row>"; a row below 0 is not said.
   Returns -1. */
int din_say(char *error, size_t error_size, const char *rule, const char *got,
            const char *column, int64_t row, const char *fix);

/* Write what stands at an element, as errors show it. */
void din_show_value(const din_column *column, int64_t i, char *out, size_t size);

/* Write how a view's type is called. */
void din_show_type(const din_view *view, char *out, size_t size);

/* Which elements of each row of lists are kept; to be closed. */
typedef struct {
  din_window window; /* its width is not set */
  int64_t *kept;     /* elements of each row, truncated or not: [R] */
  int64_t *arrays[3];
} din_list_window;

/*
 * Make the window of a part over `first`, the column of its first field, whose lists have
 * `lengths` [R]: 0, or -1 and a sentence.
 */
int din_open_window(const din_encoding *e, const din_part *part,
                    const din_column *first, const int64_t *lengths,
                    din_list_window *out);
void din_close_window(din_list_window *window);

/*
 * Refuse rows of length 0 (`kept`) that hold anything but padding, which softmax would
 * read: 0, or -1 and a sentence.
 */
int din_check_padding(const din_encoding *e, const din_part *part,
                      const din_column *column, const char *name, const int64_t *kept);

/* Read a scalar column of whole numbers: 0, or -1 and a sentence. */
int din_read_whole(const din_encoding *e, const din_column *column, const char *name,
                   int64_t *out, uint8_t *valid);

/* The error of a fault that a kernel found. */
int din_say_fault(const din_encoding *e, const din_column *column, const char *name,
                  const din_tally *tally, const char *rule, const char *type_name);

/* View a source's column as a reading does; 0, or -1 and a sentence. */
int din_require(const din_encoding *e, int32_t source, int32_t reads, int32_t is_list,
                int32_t uuid_as, din_column *out);

/*
 * Make lists of a column of text, as its source says they are written; `*memory` is to be
 * freed. 0, or -1 and a sentence.
 */
int din_split_texts(const din_encoding *e, const din_source *source,
                    const din_view *text, din_view *out, void **memory);

#ifdef __cplusplus
}
#endif

#endif /* DIN_SPEC_H */
