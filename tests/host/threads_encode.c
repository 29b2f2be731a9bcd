/* The C interface under 16 threads: one spec and one table, shared by all, of each spec
   of fuzz/specs.jsonl. All make the same, bit for bit. Run under ThreadSanitizer:
   `make tsan`. */
#include <pthread.h>

#include "../../fuzz/arrow_build.h"
#include "../../fuzz/specs.h"

enum { THREADS = 16, TABLES = 4 }; /* of each spec */

typedef struct worker {
  pthread_t thread;
  const spec *of;
  column table;
  din_encode_batch *made;
  char error[256];
} worker;

static void *work(void *data) {
  worker *w = data;
  w->made = din_encode_table(w->of->opened, w->table.schema, w->table.array, w->error,
                             sizeof w->error);
  return NULL;
}

static int is_same(const spec *s, const worker *a, const worker *b) {
  if (a->made == NULL || b->made == NULL) {
    return a->made == b->made && strcmp(a->error, b->error) == 0;
  }
  for (int64_t i = 0; i < din_encode_num_inputs(s->opened); ++i) {
    const din_encode_tensor x = din_encode_input(a->made, i);
    const din_encode_tensor y = din_encode_input(b->made, i);
    const size_t size = x.type == DIN_ENCODE_FLOAT32 ? 4 : 8;
    const size_t count = (size_t)(x.dims[0] * x.dims[1]);
    if (x.dims[0] != y.dims[0] || x.dims[1] != y.dims[1]) return 0;
    if (count && memcmp(x.data, y.data, count * size)) return 0;
  }
  return 1;
}

int main(void) {
  static worker workers[THREADS];
  int encoded = 0;
  open_specs();
  for (int k = 0; k < num_specs * TABLES; ++k) {
    uint8_t bytes[2000] = {0};
    uint64_t state = (uint64_t)k * 2654435761u + 1;
    input in;
    for (size_t i = 2; i < sizeof bytes; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[i] = (uint8_t)(state >> 56);
    }
    open_input(&in, bytes, sizeof bytes); /* an honest one */
    const spec *s = &specs[k / TABLES];
    const column table = make_table(&in, s->all, s->num_all);
    for (int i = 0; i < THREADS; ++i) {
      workers[i] = (worker){.of = s, .table = table};
      if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) abort();
    }
    for (int i = 0; i < THREADS; ++i) pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; ++i) {
      if (!is_same(s, &workers[0], &workers[i])) abort();
    }
    encoded += workers[0].made != NULL;
    for (int i = 0; i < THREADS; ++i) din_encode_release(workers[i].made);
    close_input(&in);
  }
  printf("%d tables on %d threads, %d of them encoded: no race\n", num_specs * TABLES,
         THREADS, encoded);
  return encoded > 0 ? 0 : 1;
}
