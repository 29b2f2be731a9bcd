/* Encode as an operator of ONNX Runtime: the raw columns of a spec -> the inputs of the
   model's graph, by the code of FeatureSpec.encode.

   Attributes: `spec`, its JSON, in which an encoder's `values` may be the number of a
   vocabulary; `vocabularies`, of each 1 for texts and 0 for int64; `text`: "arrow", or
   "strings" for string tensors.

   Inputs: of each vocabulary its bytes uint8 and offsets int64 [n + 1], or int64 [n], all
   constants; request_of_candidate int64 [N]; then of each column, those of requests and of
   candidates in the order in which the spec reads them:
     text     bytes uint8, offsets int32 or int64 [n + 1], validity; or strings [n],
              validity
     numbers  values int64 or float64 [n] (of K values [n, K]), validity; lengths of lists
              values alone
     lists    also row offsets int32 or int64 [R + 1], and n is the elements of all rows
   A validity is a bitmap as Arrow has it, uint8 [n / 8, rounded up]; empty: no nulls.
   An empty column that the spec can do without is not there.

   Outputs: ids and lengths int64, dense values float32, in the order of the graph.
*/
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../spec.h"
#include "op.h"

typedef struct kernel {
  din_features *features;
  din_given_keys *given;
  int64_t num_constants; /* inputs */
  int has_strings;
} kernel;

enum { MAX_VOCABULARIES = 4096 };
static const char *const TEXTS[] = {"arrow", "strings", NULL};

static void destroy(void *data) {
  kernel *k = data;
  if (k == NULL) return;
  din_features_free(k->features);
  din_free(k->given);
  din_free(k);
}

static void read_keys(din_op *op, const OrtKernelInfo *info, int64_t is_text,
                      size_t *index, din_given_keys *out) {
  const int64_t any[1] = {-1};
  din_tensor keys = din_constant(op, info, (*index)++, "vocabulary");
  din_expect(op, &keys, "vocabulary", is_text ? ORT_UINT8 : ORT_INT64, 1, any);
  if (din_failed(op)) return;
  out->num_keys = keys.dims[0];
  out->ints = keys.data;
  if (!is_text) return;
  din_tensor offsets = din_constant(op, info, (*index)++, "vocabulary.offsets");
  din_expect(op, &offsets, "vocabulary.offsets", ORT_INT64, 1, any);
  if (din_failed(op)) return;
  const int64_t *at = offsets.data;
  int64_t n = offsets.dims[0] - 1, bad = -1;
  for (int64_t i = 0; i < n && bad < 0; ++i) bad = at[i] > at[i + 1] ? i : -1;
  if (n < 0 || bad >= 0 || at[0] != 0 || at[n] > keys.dims[0]) {
    din_fail(op, "expected offsets that rise in the vocabulary, got others - at `%s`",
             op->name);
  }
  *out = (din_given_keys){keys.data, at, NULL, n};
}

static void *create(din_op *op, const OrtKernelInfo *info, int precision) {
  (void)precision;
  size_t size = 0, index = 0;
  kernel *k = din_allocate(op, 1, sizeof *k);
  char *json = din_attribute_long_text(op, info, "spec", &size);
  int64_t *kinds = din_allocate(op, MAX_VOCABULARIES, sizeof *kinds);
  size_t count = din_attribute_ints(op, info, "vocabularies", kinds, MAX_VOCABULARIES);
  const int has_strings = din_attribute_choice(op, info, "text", TEXTS);
  if (k) k->given = din_allocate(op, (int64_t)count + 1, sizeof *k->given);
  for (size_t i = 0; i < count && !din_failed(op); ++i) {
    read_keys(op, info, kinds[i], &index, &k->given[i]);
  }
  if (!din_failed(op)) {
    char error[400];
    k->has_strings = has_strings;
    k->num_constants = (int64_t)index;
    k->features = din_features_read(json, (int64_t)size, k->given, (int32_t)count,
                                    error, sizeof error);
    if (k->features == NULL) {
      din_fail(op, "%s", error);
    } else {
      const size_t num_outputs = (size_t)k->features->num_outputs;
      din_expect_outputs(op, info, num_outputs, num_outputs);
    }
  }
  din_free(json);
  din_free(kinds);
  if (!din_failed(op)) return k;
  destroy(k);
  return NULL;
}

/* ------------------------------------------------------------------------- inputs */

typedef struct run {
  din_op *op;
  const kernel *k;
  OrtKernelContext *context;
  size_t index;  /* of the next input */
  void **copies; /* of strings, freed after the run; of a source one at most */
  int32_t num_copies;
} run;

static void *allocate(run *r, int64_t count, size_t size) {
  void *memory = din_allocate(r->op, count, size);
  if (memory != NULL) r->copies[r->num_copies++] = memory;
  return memory;
}

static din_tensor next_input(run *r, const char *name) {
  return din_input(r->op, r->context, r->index++, name);
}

static din_tensor next_of(run *r, const char *name, int type, size_t rank,
                          const int64_t *dims) {
  din_tensor t = next_input(r, name);
  din_expect(r->op, &t, name, type, rank, dims);
  return t;
}

/* int32 or int64 [n + 1]; n where there is nothing: 0. */
static int64_t read_offsets(run *r, const char *name, const void **out, int *is_wide) {
  const int64_t any[1] = {-1};
  din_tensor t = next_input(r, name);
  *is_wide = t.type == ORT_INT64;
  din_expect(r->op, &t, name, *is_wide ? ORT_INT64 : ORT_INT32, 1, any);
  *out = NULL;
  if (din_failed(r->op) || t.dims[0] == 0) return 0;
  *out = t.data;
  return t.dims[0] - 1;
}

static void read_validity(run *r, const char *name, din_values *v) {
  const int64_t any[1] = {-1};
  din_tensor t = next_of(r, name, ORT_UINT8, 1, any);
  if (din_failed(r->op) || t.dims[0] == 0) return;
  if (t.dims[0] < (v->length + 7) / 8) {
    din_fail(r->op, "expected %lld bytes of bits, got %lld - at `%s input %s`",
             (long long)((v->length + 7) / 8), (long long)t.dims[0], r->op->name, name);
  }
  v->validity = t.data;
}

/* Copy a tensor of strings: their bytes, one behind the other, and where each begins. */
static void read_strings(run *r, const char *name, din_values *v) {
  const OrtApi *api = r->op->api;
  const OrtValue *value = NULL;
  const int64_t any[1] = {-1};
  size_t size = 0;
  din_check(r->op, api->KernelContext_GetInput(r->context, r->index, &value));
  din_tensor t = next_of(r, name, ORT_STRING, 1, any);
  if (din_failed(r->op)) return;
  din_check(r->op, api->GetStringTensorDataLength(value, &size));
  const int64_t n = t.dims[0];
  const int64_t words = n + 1 + (int64_t)(size / sizeof(int64_t)) + 1;
  int64_t *offsets = allocate(r, words, sizeof *offsets);
  if (offsets == NULL) return;
  _Static_assert(sizeof(size_t) == sizeof(int64_t), "64 bits");
  if (n > 0) {
    din_check(r->op, api->GetStringTensorContent(value, offsets + n + 1, size,
                                                 (size_t *)offsets, (size_t)n));
  }
  offsets[n] = (int64_t)size;
  v->type = DIN_BYTES64;
  v->length = n;
  v->data = offsets;
  v->bytes = (const uint8_t *)(offsets + n + 1);
}

static void read_text(run *r, const char *name, din_values *v, int64_t *num_bytes) {
  char input[200];
  const int64_t any[1] = {-1};
  int is_wide;
  if (r->k->has_strings) {
    read_strings(r, name, v);
    *num_bytes = INT64_MAX;
    return;
  }
  snprintf(input, sizeof input, "%.150s.bytes", name);
  din_tensor bytes = next_of(r, input, ORT_UINT8, 1, any);
  snprintf(input, sizeof input, "%.150s.offsets", name);
  v->length = read_offsets(r, input, &v->data, &is_wide);
  v->type = is_wide ? DIN_BYTES64 : DIN_BYTES32;
  v->bytes = bytes.data;
  *num_bytes = bytes.dims[0];
}

static void read_numbers(run *r, const din_source *source, din_column *c) {
  din_values *v = &c->values;
  const int is_int = source->reads == DIN_READS_INT64;
  const int64_t dims[2] = {-1, source->size};
  const size_t rank = source->size > 1 ? 2 : 1;
  din_tensor t = next_of(r, source->name, is_int ? ORT_INT64 : ORT_DOUBLE, rank, dims);
  v->type = is_int ? DIN_INT64 : DIN_FLOAT64;
  v->data = t.data;
  v->length = t.dims[0] * source->size;
  if (source->size > 1) {
    c->nesting = DIN_FIXED_LIST;
    c->list_size = source->size;
  }
  c->num_rows = t.dims[0];
}

/* Refuse checked offsets that lead out of the bytes. */
static void check_bytes(din_op *op, const din_values *v, const char *name,
                        int64_t num_bytes) {
  if (v->num_bytes <= num_bytes) return;
  din_fail(op,
           "expected offsets of at most %lld, the number of bytes, got %lld - at"
           " `%s input %s.offsets`",
           (long long)num_bytes, (long long)v->num_bytes, op->name, name);
}

static void read_source(run *r, int32_t i, din_view *view) {
  const din_source *source = &r->k->features->sources[i];
  din_column *c = &view->column;
  char input[200], error[400];
  int64_t num_bytes = INT64_MAX;
  const int is_text = source->reads == DIN_READS_BYTES || source->written;
  const int is_list = source->is_list && !source->written;
  view->is_given = 1;
  view->is_list = is_list || (source->size > 1 && !is_text);
  if (is_text) {
    view->kind = DIN_KIND_STRING;
    snprintf(view->type_name, sizeof view->type_name, "string");
    read_text(r, source->name, &c->values, &num_bytes);
    c->num_rows = c->values.length;
  } else {
    const int is_int = source->reads == DIN_READS_INT64;
    view->kind = is_int ? DIN_KIND_INT : DIN_KIND_FLOAT;
    snprintf(view->type_name, sizeof view->type_name, is_int ? "int64" : "float64");
    read_numbers(r, source, c);
  }
  if (!source->is_length) {
    snprintf(input, sizeof input, "%.150s.validity", source->name);
    read_validity(r, input, &c->values);
  }
  if (is_list) {
    int is_wide;
    snprintf(input, sizeof input, "%.150s.row_offsets", source->name);
    c->num_rows = read_offsets(r, input, &c->offsets, &is_wide);
    c->nesting = is_wide ? DIN_LIST64 : DIN_LIST32;
  }
  if (din_failed(r->op)) return;
  if (din_check_view(view, source->name, r->k->features->isa, error, sizeof error)) {
    din_fail(r->op, "%s", error);
    return;
  }
  if (is_text) check_bytes(r->op, &c->values, source->name, num_bytes);
}

/* ------------------------------------------------------------------------ a run */

static void *make_output(void *context, int32_t index, const int64_t *dims) {
  run *r = context;
  const din_output_kind *kind = &r->k->features->outputs[index];
  static char nothing[8];
  const int type = kind->type == DIN_FLOAT_OUTPUT ? ORT_FLOAT : ORT_INT64;
  void *data = din_output(r->op, r->context, (size_t)index, kind->name, type, dims,
                          (size_t)kind->rank);
  if (din_failed(r->op)) return NULL;
  return data == NULL ? nothing : data; /* of no elements */
}

typedef struct shared {
  void (*run)(void *data, int64_t part);
  void *data;
} shared;

static void run_shared(void *data, size_t part) {
  const shared *s = data;
  s->run(s->data, (int64_t)part);
}

static void share(void *context, void (*portion)(void *, int64_t), void *data,
                  int64_t count) {
  run *r = context;
  shared s = {portion, data};
  din_check(r->op, r->op->api->KernelContext_ParallelFor(
                       r->context, run_shared, (size_t)count, (size_t)count, &s));
}

static void compute_views(run *r, din_view *views) {
  const din_features *f = r->k->features;
  const int64_t any[1] = {-1};
  char error[400] = "";
  int64_t num_rows[2] = {-1, -1};
  r->index = (size_t)r->k->num_constants;
  din_tensor owners = next_of(r, "request_of_candidate", ORT_INT64, 1, any);
  for (int32_t i = 0; i < f->num_sources && !din_failed(r->op); ++i) {
    read_source(r, i, &views[i]);
    const int32_t side = f->sources[i].side;
    if (!f->sources[i].is_optional && num_rows[side] < 0) {
      num_rows[side] = views[i].column.num_rows;
    }
  }
  if (din_failed(r->op)) return;
  num_rows[DIN_CANDIDATE] = owners.dims[0];
  for (int32_t i = 0; i < f->num_sources; ++i) {
    if (f->sources[i].is_optional && views[i].column.num_rows == 0) {
      views[i].is_given = num_rows[f->sources[i].side] == 0;
    }
  }
  if (num_rows[DIN_USER] >= 0) {
    din_free(din_copy_range(r->op, owners.data, owners.dims[0], num_rows[DIN_USER],
                            "request_of_candidate"));
  } else {
    num_rows[DIN_USER] = 0;
  }
  if (din_failed(r->op)) return;
  const din_encoding e = {.features = f,
                          .views = views,
                          .num_rows = {num_rows[0], num_rows[1]},
                          .context = r,
                          .output = make_output,
                          .share = share,
                          .error = error,
                          .error_size = sizeof error};
  if (din_features_encode(&e) && !din_failed(r->op)) din_fail(r->op, "%s", error);
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const int32_t count = k->features->num_sources;
  din_view *views = din_allocate(op, count, sizeof *views);
  run r = {op, k, context, 0, NULL, 0};
  r.copies = din_allocate(op, count, sizeof(void *));
  if (!din_failed(op)) compute_views(&r, views);
  for (int32_t i = 0; i < r.num_copies; ++i) din_free(r.copies[i]);
  din_free(r.copies);
  din_free(views);
}

const din_kind din_encode_op = {create, compute, destroy};
