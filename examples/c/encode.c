/* Rows of raw values -> ids, in C: the columns are laid out by hand, as Arrow has them.

     python -m din_infer.c_api          # prints the header and the library
     cc -o encode encode.c -I<folder of the header> <library> -Wl,-rpath,<its folder>
     ./encode spec.json                 # what FeatureSpec.to_json gives

   The spec reads `user_id`, `goods_id` and lists `hist_goods_id` of strings, and `price`.
 */
#include <din_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3, COLUMNS = 4 };

static char *read_file(const char *path, long *size) {
  FILE *file = fopen(path, "rb");
  char *text = NULL;
  if (file == NULL) return NULL;
  if (fseek(file, 0, SEEK_END) == 0 && (*size = ftell(file)) >= 0) {
    rewind(file);
    text = malloc((size_t)*size + 1);
    if (text != NULL && fread(text, 1, (size_t)*size, file) != (size_t)*size) {
      free(text);
      text = NULL;
    }
  }
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  char error[400];
  long size = 0;
  char *json = argc == 2 ? read_file(argv[1], &size) : NULL;
  if (json == NULL) {
    fprintf(stderr, "usage: encode spec.json\n");
    return 2;
  }
  din_encode_spec *spec = din_encode_open(json, size, error, sizeof error);
  free(json);
  if (spec == NULL) {
    fprintf(stderr, "%s\n", error);
    return 1;
  }

  /* Text is all its bytes, and where that of each row begins and ends; the second user is
     null, which the bitmap says. A list is its elements, and where those of each row are. */
  const int32_t user_ends[] = {0, 3, 3, 6};
  const uint8_t user_valid[] = {5}; /* rows 0 and 2 */
  const void *user_buffers[] = {user_valid, user_ends, "anneve"};
  const int32_t goods_ends[] = {0, 1, 2, 3};
  const void *goods_buffers[] = {NULL, goods_ends, "abc"};
  const int32_t element_ends[] = {0, 1, 2, 4, 5};
  const void *element_buffers[] = {NULL, element_ends, "abxyz"};
  const int32_t list_ends[] = {0, 3, 3, 4}; /* a, b, xy; none; z */
  const void *list_buffers[] = {NULL, list_ends};
  const double prices[] = {0.5, 10.0, 2.25};
  const void *price_buffers[] = {NULL, prices};

  struct ArrowSchema element_type = {.format = "u", .name = "item"};
  struct ArrowSchema *list_children[] = {&element_type};
  struct ArrowSchema types[COLUMNS] = {
      {.format = "u", .name = "user_id"},
      {.format = "u", .name = "goods_id"},
      {.format = "+l",
       .name = "hist_goods_id",
       .n_children = 1,
       .children = list_children},
      {.format = "g", .name = "price"},
  };
  struct ArrowArray elements = {
      .length = 4, .n_buffers = 3, .buffers = element_buffers};
  struct ArrowArray *element_arrays[] = {&elements};
  struct ArrowArray arrays[COLUMNS] = {
      {.length = ROWS, .null_count = 1, .n_buffers = 3, .buffers = user_buffers},
      {.length = ROWS, .n_buffers = 3, .buffers = goods_buffers},
      {.length = ROWS,
       .n_buffers = 2,
       .buffers = list_buffers,
       .n_children = 1,
       .children = element_arrays},
      {.length = ROWS, .n_buffers = 2, .buffers = price_buffers},
  };
  struct ArrowSchema *type_of[COLUMNS];
  struct ArrowArray *array_of[COLUMNS];
  for (int i = 0; i < COLUMNS; ++i) {
    type_of[i] = &types[i];
    array_of[i] = &arrays[i];
  }
  const void *no_nulls[] = {NULL};
  const struct ArrowSchema table_type = {
      .format = "+s", .name = "", .n_children = COLUMNS, .children = type_of};
  const struct ArrowArray table = {.length = ROWS,
                                   .n_buffers = 1,
                                   .buffers = no_nulls,
                                   .n_children = COLUMNS,
                                   .children = array_of};

  din_encode_batch *batch =
      din_encode_table(spec, &table_type, &table, error, sizeof error);
  if (batch == NULL) fprintf(stderr, "%s\n", error);
  for (int64_t i = 0; batch != NULL && i < din_encode_num_inputs(spec); ++i) {
    const din_encode_tensor t = din_encode_input(batch, i);
    const int64_t count = t.dims[0] * t.dims[1]; /* dims[1] is 1 where rank is 1 */
    printf("%s", t.name);
    for (int64_t k = 0; k < count; ++k) {
      if (t.type == DIN_ENCODE_INT64) {
        printf(" %lld", (long long)((const int64_t *)t.data)[k]);
      } else {
        printf(" %.9g", (double)((const float *)t.data)[k]);
      }
    }
    printf("\n");
  }
  const int status = batch == NULL;
  din_encode_release(batch);
  din_encode_close(spec);
  return status;
}
