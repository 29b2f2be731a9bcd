/*
 * The input is a spec's JSON. Where it is one that the parser takes, three rows are
 * encoded, of the types that its columns want.
 */
#include "spec.h"

#include <stdlib.h>
#include <string.h>

#include "../din_infer/include/din_encode.h"

enum { ROWS = 3 };

struct din_encode_spec {
  din_features *features;
};

/* One column: a list of it, if `list` is set. */
typedef struct {
  struct ArrowSchema schema, list_schema;
  struct ArrowArray array, list_array;
  struct ArrowSchema *schema_child;
  struct ArrowArray *array_child;
  const void *buffers[3], *list_buffers[2];
} column;

static const int64_t NUMBERS[ROWS] = {1, 0, 2};
static const double FLOATS[ROWS] = {0.5, -1e300, 2};
static const int32_t ENDS[ROWS + 1] = {0, 1, 1, 3};
static const int32_t LIST_ENDS[ROWS + 1] = {0, 2, 2, 3};
static const char LETTERS[3] = {'a', 'b', 'c'};
static const char LISTS[] = "[1][][2]";
static const int32_t LISTS_ENDS[ROWS + 1] = {0, 3, 5, 8};

static void fill(column *c, const din_source *s) {
  const int is_json = s->written == DIN_TEXT_JSON && s->reads != DIN_READS_BYTES;
  const int is_text = s->reads == DIN_READS_BYTES || is_json;
  memset(c, 0, sizeof *c);
  c->schema.name = c->list_schema.name = s->name;
  c->schema.format = is_text ? "u" : s->reads == DIN_READS_INT64 ? "l" : "g";
  c->buffers[1] = is_json                       ? (const void *)LISTS_ENDS
                  : is_text                     ? (const void *)ENDS
                  : s->reads == DIN_READS_INT64 ? (const void *)NUMBERS
                                                : (const void *)FLOATS;
  c->buffers[2] = is_json ? LISTS : LETTERS;
  c->array.length = ROWS;
  c->array.n_buffers = is_text ? 3 : 2;
  c->array.buffers = c->buffers;
  c->schema_child = &c->schema;
  c->array_child = &c->array;
  c->list_schema.format = "+l";
  c->list_schema.n_children = c->list_array.n_children = 1;
  c->list_schema.children = &c->schema_child;
  c->list_array.children = &c->array_child;
  c->list_buffers[1] = LIST_ENDS;
  c->list_array.buffers = c->list_buffers;
  c->list_array.n_buffers = 2;
  c->list_array.length = ROWS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char error[512];
  /* a copy of its own: no byte behind it may be read */
  char *json = malloc(size == 0 ? 1 : size);
  if (size > 0) memcpy(json, data, size);
  din_encode_spec *spec = din_encode_open(json, (int64_t)size, error, sizeof error);
  free(json);
  if (spec == NULL) {
    if (strncmp(error, "expected ", 9) != 0) abort();
    return 0;
  }
  const din_features *f = spec->features;
  const size_t count = (size_t)f->num_sources;
  column *columns = calloc(count + 1, sizeof *columns);
  struct ArrowSchema **schemas = calloc(count + 1, sizeof *schemas);
  struct ArrowArray **arrays = calloc(count + 1, sizeof *arrays);
  int64_t given = 0;
  for (size_t i = 0; i < count; ++i) {
    const din_source *s = &f->sources[i];
    int is_again = 0; /* a column of both sides is there once */
    for (size_t k = 0; k < i; ++k) is_again |= !strcmp(f->sources[k].name, s->name);
    if (is_again) continue;
    column *c = &columns[given];
    fill(c, s);
    const int is_list = (s->is_list || s->size > 1) && s->written != DIN_TEXT_JSON;
    schemas[given] = is_list ? &c->list_schema : &c->schema;
    arrays[given] = is_list ? &c->list_array : &c->array;
    ++given;
  }
  const struct ArrowSchema schema = {
      .format = "+s", .n_children = given, .children = schemas};
  const struct ArrowArray array = {
      .length = ROWS, .n_children = given, .children = arrays};
  din_encode_batch *batch =
      din_encode_table(spec, &schema, &array, error, sizeof error);
  if (batch == NULL && strncmp(error, "expected ", 9) != 0) abort();
  din_encode_release(batch);
  din_encode_close(spec);
  free(columns);
  free(schemas);
  free(arrays);
  return 0;
}
