/* The C interface of encoding: what din_encode.h declares. */
#define DIN_ENCODE_BUILD
#include "../din_infer/include/din_encode.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"
#include "spec_arrow.h"

struct din_encode_spec {
  din_features *features;
};

struct din_encode_batch {
  int64_t count;
  din_encode_tensor tensors[];
};

int32_t din_encode_version(void) { return DIN_ENCODE_VERSION; }

din_encode_spec *din_encode_open(const char *json, int64_t size, char *error,
                                 size_t error_size) {
  char unused[1];
  if (error == NULL || error_size == 0) error = unused, error_size = 1;
  error[0] = '\0';
  if (json == NULL) {
    snprintf(error, error_size, "expected JSON, got none");
    return NULL;
  }
  din_encode_spec *spec = malloc(sizeof *spec);
  if (spec == NULL) {
    snprintf(error, error_size, "expected memory for the spec, got none");
    return NULL;
  }
  spec->features = din_features_read(json, size, NULL, 0, error, error_size);
  if (spec->features != NULL) return spec;
  free(spec);
  return NULL;
}

void din_encode_close(din_encode_spec *spec) {
  if (spec == NULL) return;
  din_features_free(spec->features);
  free(spec);
}

int64_t din_encode_num_columns(const din_encode_spec *spec) {
  return spec == NULL ? 0 : spec->features->num_sources;
}

din_encode_column din_encode_get_column(const din_encode_spec *spec, int64_t i) {
  if (i < 0 || i >= din_encode_num_columns(spec))
    return (din_encode_column){NULL, 0, 0};
  const din_source *s = &spec->features->sources[i];
  return (din_encode_column){s->name, s->side == DIN_CANDIDATE, s->is_optional};
}

int64_t din_encode_num_inputs(const din_encode_spec *spec) {
  return spec == NULL ? 0 : spec->features->num_outputs + 1;
}

const char *din_encode_input_name(const din_encode_spec *spec, int64_t i) {
  const int64_t last = din_encode_num_inputs(spec) - 1;
  if (i < 0 || i > last) return NULL;
  return i == last ? "request_of_candidate" : spec->features->outputs[i].name;
}

/* ------------------------------------------------------------------------ encoding */

typedef struct {
  const din_features *features;
  din_encode_batch *batch;
} maker;

static int64_t *make_tensor(din_encode_batch *batch, int64_t index, const char *name,
                            int32_t type, int32_t rank, const int64_t *dims) {
  const int64_t width = rank == 2 ? dims[1] : 1;
  const int64_t size = type == DIN_ENCODE_INT64 ? 8 : 4;
  din_encode_tensor *t = &batch->tensors[index];
  *t = (din_encode_tensor){name, type, rank, {dims[0], width}, NULL};
  if (dims[0] > 0 && width > INT64_MAX / 16 / dims[0]) return NULL;
  void *data = malloc((size_t)(dims[0] * width * size) + 1);
  t->data = data;
  return data;
}

static void *make_output(void *context, int32_t index, const int64_t *dims) {
  const maker *m = context;
  const din_output_kind *kind = &m->features->outputs[index];
  return make_tensor(
      m->batch, index, kind->name,
      kind->type == DIN_FLOAT_OUTPUT ? DIN_ENCODE_FLOAT32 : DIN_ENCODE_INT64,
      kind->rank, dims);
}

/* Find the columns of one side in a struct; 0, or -1 and a sentence. */
static int view_side(const din_features *f, int32_t side,
                     const struct ArrowSchema *schema, const struct ArrowArray *array,
                     const char *place, din_view *views, char *error,
                     size_t error_size) {
  if (schema == NULL || array == NULL || schema->format == NULL ||
      strcmp(schema->format, "+s") != 0 || schema->n_children != array->n_children ||
      array->length < 0 || array->length > DIN_MAX_ROWS || array->offset < 0 ||
      array->offset > DIN_MAX_ROWS ||
      (schema->n_children > 0 &&
       (schema->children == NULL || array->children == NULL))) {
    return din_say(error, error_size, "a struct of columns", "something else", place,
                   -1, "");
  }
  for (int32_t i = 0; i < f->num_sources; ++i) {
    const din_source *source = &f->sources[i];
    if (source->side != side) continue;
    for (int64_t k = 0; k < schema->n_children; ++k) {
      const struct ArrowSchema *child = schema->children[k];
      if (child == NULL || child->name == NULL || strcmp(child->name, source->name)) {
        continue;
      }
      if (views[i].is_given) {
        return din_say(error, error_size, "each column once", "two", source->name, -1,
                       "");
      }
      if (din_view_arrow(child, array->children[k], array->offset, array->length,
                         source->name, f->isa, &views[i], error, error_size)) {
        return -1;
      }
    }
    if (!views[i].is_given && !source->is_optional) {
      char rule[200];
      snprintf(rule, sizeof rule, "a column `%.150s`", source->name);
      return din_say(error, error_size, rule, "none of that name", place, -1, "");
    }
  }
  const uint8_t *valid =
      array->null_count == 0 || array->n_buffers < 1 || array->buffers == NULL
          ? NULL
          : array->buffers[0];
  for (int64_t row = 0; valid != NULL && row < array->length; ++row) {
    if (din_bit(valid, array->offset + row)) continue;
    return din_say(error, error_size, "a table without null rows", "a null", place, row,
                   "");
  }
  return 0;
}

static int fill_owners(din_encode_batch *batch, int64_t index, const int64_t *owners,
                       int64_t num_requests, int64_t num_candidates, int is_table,
                       char *error, size_t error_size) {
  static const char name[] = "request_of_candidate";
  int64_t *out = make_tensor(batch, index, name, DIN_ENCODE_INT64, 1, &num_candidates);
  if (out == NULL) {
    return din_say(error, error_size, "memory for it", "none", name, -1, "");
  }
  if (!is_table && owners == NULL && num_requests != 1) {
    char rule[100];
    snprintf(rule, sizeof rule,
             "which of %" PRId64 " requests each candidate belongs to", num_requests);
    return din_say(error, error_size, rule, "NULL", name, -1, "");
  }
  for (int64_t n = 0; n < num_candidates; ++n) {
    out[n] = is_table ? n : owners == NULL ? 0 : owners[n];
    if (out[n] >= 0 && out[n] < num_requests) continue;
    char rule[60], got[32];
    snprintf(rule, sizeof rule, "a request in [0, %" PRId64 ")", num_requests);
    snprintf(got, sizeof got, "%" PRId64, out[n]);
    return din_say(error, error_size, rule, got, name, n, "");
  }
  return 0;
}

static din_encode_batch *encode(const din_encode_spec *spec,
                                const struct ArrowSchema *users_schema,
                                const struct ArrowArray *users,
                                const struct ArrowSchema *items_schema,
                                const struct ArrowArray *items, const int64_t *owners,
                                int is_table, char *error, size_t error_size) {
  char unused[1];
  if (error == NULL || error_size == 0) error = unused, error_size = 1;
  error[0] = '\0';
  if (spec == NULL) {
    snprintf(error, error_size, "expected an opened spec, got NULL");
    return NULL;
  }
  const din_features *f = spec->features;
  const int64_t count = f->num_outputs + 1;
  din_view *views = calloc((size_t)f->num_sources + 1, sizeof *views);
  din_encode_batch *batch =
      calloc(1, sizeof *batch + (size_t)count * sizeof(din_encode_tensor));
  if (views == NULL || batch == NULL) {
    free(views);
    free(batch);
    snprintf(error, error_size, "expected memory for a batch, got none");
    return NULL;
  }
  batch->count = count;
  maker m = {f, batch};
  int failed = view_side(f, DIN_USER, users_schema, users,
                         is_table ? "batch" : "requests", views, error, error_size) ||
               view_side(f, DIN_CANDIDATE, items_schema, items,
                         is_table ? "batch" : "candidates", views, error, error_size) ||
               fill_owners(batch, count - 1, owners, users->length, items->length,
                           is_table, error, error_size);
  if (!failed) {
    const din_encoding e = {.features = f,
                            .views = views,
                            .num_rows = {users->length, items->length},
                            .context = &m,
                            .output = make_output,
                            .error = error,
                            .error_size = error_size};
    failed = din_features_encode(&e);
  }
  for (int32_t i = 0; i < f->num_sources; ++i) free(views[i].memory);
  free(views);
  if (!failed) return batch;
  din_encode_release(batch);
  return NULL;
}

din_encode_batch *din_encode_table(const din_encode_spec *spec,
                                   const struct ArrowSchema *schema,
                                   const struct ArrowArray *array, char *error,
                                   size_t error_size) {
  return encode(spec, schema, array, schema, array, NULL, 1, error, error_size);
}

din_encode_batch *din_encode_requests(const din_encode_spec *spec,
                                      const struct ArrowSchema *requests_schema,
                                      const struct ArrowArray *requests,
                                      const struct ArrowSchema *candidates_schema,
                                      const struct ArrowArray *candidates,
                                      const int64_t *request_of_candidate, char *error,
                                      size_t error_size) {
  return encode(spec, requests_schema, requests, candidates_schema, candidates,
                request_of_candidate, 0, error, error_size);
}

din_encode_tensor din_encode_input(const din_encode_batch *batch, int64_t i) {
  if (batch != NULL && i >= 0 && i < batch->count) return batch->tensors[i];
  return (din_encode_tensor){NULL, 0, 0, {0, 0}, NULL};
}

void din_encode_release(din_encode_batch *batch) {
  if (batch == NULL) return;
  for (int64_t i = 0; i < batch->count; ++i) {
    free((void *)(uintptr_t)batch->tensors[i].data);
  }
  free(batch);
}
