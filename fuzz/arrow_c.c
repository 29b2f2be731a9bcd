/*
 * Arrow structures through the C interface: a table, or requests with their candidates.
 * What is encoded has ids inside their tables, lengths inside max_len; what is not, a
 * sentence; and two calls give the same.
 */
#include "arrow_build.h"
#include "specs.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  open_specs();
  return 0;
}

static void require(int is_so) {
  if (!is_so) abort();
}

/* The table's rows of an input of ids; 0 for an input of lengths, whose limit is added. */
static int64_t limit_of(const din_features *f, int64_t input, int64_t requests) {
  if (input == f->num_outputs) return requests;
  for (int32_t i = 0; i < f->num_ids; ++i) {
    if (f->ids[i].output == input) return f->ids[i].num_rows;
  }
  for (int32_t i = 0; i < f->num_parts; ++i) {
    const din_part *part = &f->parts[i];
    if (part->kind == DIN_PART_LISTS && part->lengths_output == input) {
      return part->max_len + 1;
    }
  }
  return 0;
}

static void check_batch(const spec *s, const din_encode_batch *batch,
                        int64_t requests) {
  const din_features *f = s->opened->features;
  for (int64_t i = 0; i <= f->num_outputs; ++i) {
    const din_encode_tensor t = din_encode_input(batch, i);
    const int64_t size = t.dims[0] * t.dims[1];
    require(t.dims[0] >= 0 && t.dims[1] >= 0);
    if (t.type == DIN_ENCODE_FLOAT32) {
      for (int64_t k = 0; k < size; ++k) {
        const float x = ((const float *)t.data)[k];
        require(x - x == 0); /* finite */
      }
      continue;
    }
    const int64_t limit = limit_of(f, i, requests);
    require(limit > 0 || size == 0);
    for (int64_t k = 0; k < size; ++k) {
      const int64_t id = ((const int64_t *)t.data)[k];
      require(id >= 0 && id < limit);
    }
  }
}

static void check_same(const spec *s, const din_encode_batch *a,
                       const din_encode_batch *b) {
  for (int64_t i = 0; i < din_encode_num_inputs(s->opened); ++i) {
    const din_encode_tensor x = din_encode_input(a, i), y = din_encode_input(b, i);
    const size_t size = x.type == DIN_ENCODE_FLOAT32 ? 4 : 8;
    require(x.dims[0] == y.dims[0] && x.dims[1] == y.dims[1]);
    require(x.dims[0] * x.dims[1] == 0 ||
            memcmp(x.data, y.data, size * (size_t)(x.dims[0] * x.dims[1])) == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in;
  char errors[2][256] = {"", ""};
  din_encode_batch *made[2] = {NULL, NULL};
  open_input(&in, data, size);
  const int how = take(&in);
  const spec *s = &specs[how / 2 % num_specs];
  int64_t *owners = NULL;
  int64_t requests;
  column users, items = {NULL, NULL};
  if (how & 1) {
    users = make_table(&in, s->columns[DIN_USER], s->num_columns[DIN_USER]);
    items = make_table(&in, s->columns[DIN_CANDIDATE], s->num_columns[DIN_CANDIDATE]);
    const int64_t count = items.array->length, of = users.array->length;
    if (count >= 0 && count <= MOST_ROWS && take(&in) < 240) {
      owners = give(&in, (size_t)count * sizeof *owners);
      for (int64_t n = 0; n < count; ++n) {
        owners[n] = of > 0 && of <= MOST_ROWS ? draw(&in) % of : 0;
        if (lies(&in)) owners[n] = pick(&in, 2) ? of : impossible(&in);
      }
    }
  } else {
    users = make_table(&in, s->all, s->num_all);
  }
  requests = users.array->length;
  const int num_calls = take(&in) % 8 == 7 ? 2 : 1;
  for (int i = 0; i < num_calls; ++i) {
    /* and into an error of any size */
    const size_t room = i == 0 ? sizeof errors[0] : (size_t)(how % sizeof errors[1]);
    made[i] =
        how & 1
            ? din_encode_requests(s->opened, users.schema, users.array, items.schema,
                                  items.array, owners, errors[i], room)
            : din_encode_table(s->opened, users.schema, users.array, errors[i], room);
  }
  require(num_calls == 1 || (made[0] == NULL) == (made[1] == NULL));
  if (made[0] == NULL) {
    require(strncmp(errors[0], "expected ", 9) == 0);
  } else {
    check_batch(s, made[0], requests);
    if (num_calls == 2) check_same(s, made[0], made[1]);
  }
  din_encode_release(made[0]);
  din_encode_release(made[1]);
  close_input(&in);
  return 0;
}
