/*
 * din-infer: raw values -> the ids that a model takes, without Python and without ONNX.
 *
 * The functions are in the library of native operators (din_infer/_ops.so; on Windows
 * _ops.dll), which `python -m din_infer.c_api` names. They encode as
 * FeatureSpec.encode does in Python, by the same code: ids are equal bit for bit.
 *
 *     din_encode_spec *spec = din_encode_open(json, size, error, sizeof error);
 *     din_encode_batch *batch =
 *         din_encode_table(spec, &schema, &array, error, sizeof error);
 *     for (int64_t i = 0; i < din_encode_num_inputs(spec); ++i) {
 *       din_encode_tensor t = din_encode_input(batch, i);  .. t.name, t.dims, t.data ..
 *     }
 *     din_encode_release(batch);
 *     din_encode_close(spec);
 *
 * Columns are Arrow's, by its C data interface: whoever has no Arrow library can fill
 * the two structs below by hand. They are read, never changed, released or kept.
 *
 * Every function may be called by any threads at a time; a spec may be shared by them.
 * A batch belongs to the caller. What fails returns NULL and writes a sentence, ended by
 * 0 and cut where it is long, into `error`: "expected .., got .. - at `column`, row 17".
 * Nothing is printed, no signal is raised, nothing is kept but what was returned. A
 * spec or batch of NULL is such a failure: of numbers 0, of the rest NULL or no data.
 * Arrays that break Arrow's own rules on how long buffers are cannot be recognized.
 *
 * Letters: B requests, N candidates, R either, T positions, K values.
 */
#ifndef DIN_INFER_ENCODE_H
#define DIN_INFER_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Functions and structs are only ever added: a program runs with any library whose
   din_encode_version() is at least the version that it was compiled with. */
#define DIN_ENCODE_VERSION 1

#if defined(DIN_ENCODE_BUILD) && defined(_WIN32)
#define DIN_ENCODE_API __declspec(dllexport)
#elif defined(DIN_ENCODE_BUILD)
#define DIN_ENCODE_API __attribute__((visibility("default")))
#else
#define DIN_ENCODE_API
#endif

/* Arrow's C data interface, as https://arrow.apache.org/docs/format/CDataInterface.html
   fixes it. */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

typedef struct din_encode_spec din_encode_spec;
typedef struct din_encode_batch din_encode_batch;

enum { DIN_ENCODE_FLOAT32, DIN_ENCODE_INT64 };

/* One input of the model. `data` is row-major, and lives as long as its batch. */
typedef struct din_encode_tensor {
  const char *name;
  int32_t type; /* DIN_ENCODE_FLOAT32 or DIN_ENCODE_INT64 */
  int32_t rank; /* 1: [R]; 2: [R, T] or [R, K] */
  int64_t dims[2];
  const void *data;
} din_encode_tensor;

/* A column that the spec reads. */
typedef struct din_encode_column {
  const char *name;
  int32_t of_candidates; /* else of requests */
  int32_t is_optional;   /* a batch may lack it */
} din_encode_column;

/* The version of the library. */
DIN_ENCODE_API int32_t din_encode_version(void);

/*
 * Read a spec: the JSON of `size` bytes that a model holds as `din_infer.spec`, or that
 * FeatureSpec.to_json gives. Vocabularies are built once, here.
 */
DIN_ENCODE_API din_encode_spec *din_encode_open(const char *json, int64_t size,
                                                char *error, size_t error_size);
DIN_ENCODE_API void din_encode_close(din_encode_spec *spec);

/* The columns that the spec reads, 0 <= i < num. A name may occur on both sides. */
DIN_ENCODE_API int64_t din_encode_num_columns(const din_encode_spec *spec);
DIN_ENCODE_API din_encode_column din_encode_get_column(const din_encode_spec *spec,
                                                       int64_t i);

/* The inputs of the model, in the order of the graph; the last is
   request_of_candidate. Of what is no input, NULL. */
DIN_ENCODE_API int64_t din_encode_num_inputs(const din_encode_spec *spec);
DIN_ENCODE_API const char *din_encode_input_name(const din_encode_spec *spec,
                                                 int64_t i);

/*
 * Encode a table, a row of which is a request with its only candidate: B = N. `schema` and
 * `array` are a struct with a child of each column (a record batch); children that the
 * spec does not read are not looked at.
 */
DIN_ENCODE_API din_encode_batch *din_encode_table(const din_encode_spec *spec,
                                                  const struct ArrowSchema *schema,
                                                  const struct ArrowArray *array,
                                                  char *error, size_t error_size);

/*
 * Encode B requests and their N candidates, a struct each. Candidate n belongs to request
 * request_of_candidate[n], all of them in [0, B); NULL: to the only one there is.
 */
DIN_ENCODE_API din_encode_batch *din_encode_requests(
    const din_encode_spec *spec, const struct ArrowSchema *requests_schema,
    const struct ArrowArray *requests, const struct ArrowSchema *candidates_schema,
    const struct ArrowArray *candidates, const int64_t *request_of_candidate,
    char *error, size_t error_size);

/* Input i of the model, 0 <= i < din_encode_num_inputs; else a tensor without data. */
DIN_ENCODE_API din_encode_tensor din_encode_input(const din_encode_batch *batch,
                                                  int64_t i);
DIN_ENCODE_API void din_encode_release(din_encode_batch *batch);

#ifdef __cplusplus
}
#endif

#endif /* DIN_INFER_ENCODE_H */
