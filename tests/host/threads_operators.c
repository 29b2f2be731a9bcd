/* Operators under 16 threads: one kernel of each, shared, and kernels that each thread
   makes; their work is cut into chunks on four threads more. All compute the same, bit
   for bit. Run under ThreadSanitizer: `make tsan`. */
#include "../../fuzz/operators.c"

enum { THREADS = 16, CASES = 60, CHUNK_THREADS = 2 };

typedef struct worker {
  pthread_t thread;
  const OrtCustomOp *op;
  void *kernel;
  outcome shared, own;
} worker;

static void compute(const OrtCustomOp *op, void *kernel, outcome *out) {
  OrtKernelContext c = context; /* its inputs are shared */
  note(out, op->KernelComputeV2(kernel, &c));
  memcpy(out->outputs, c.outputs, sizeof out->outputs);
}

static void *work(void *data) {
  worker *w = data;
  void *kernel = NULL;
  compute(w->op, w->kernel, &w->shared);
  const OrtCustomOp *op = host_operator(name, precision);
  note(&w->own, op->CreateKernelV2(op, &HOST_API, &info, &kernel));
  if (kernel == NULL) abort();
  compute(op, kernel, &w->own);
  op->KernelDestroy(kernel);
  return NULL;
}

static void require_same(const outcome *a, const outcome *b) {
  if (strcmp(a->message, b->message)) fail("sentences", a, b);
  for (int i = 0; i < HOST_MAX_OUTPUTS && !a->message[0]; i++) {
    const int64_t bytes = host_bytes(&a->outputs[i]);
    if (a->outputs[i].type == 0 || bytes == 0) continue;
    if (memcmp(a->outputs[i].data, b->outputs[i].data, (size_t)bytes)) {
      fail("bytes", a, b);
    }
  }
}

int main(void) {
  static worker workers[THREADS];
  int run_cases = 0;
  prefers_many = 1;
  chosen = din_find_isa(NULL);
  for (unsigned seed = 0; run_cases < CASES; seed++) {
    uint8_t bytes[400] = {0};
    uint64_t state = seed * 2654435761u + 1;
    for (size_t i = 1; i < sizeof bytes; i++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[i] = (uint8_t)(state >> 56);
    }
    at = bytes, stop = bytes + sizeof bytes; /* the first: that nothing is wrong */
    build();
    context.num_threads = CHUNK_THREADS;
    void *kernel = NULL;
    outcome first = {.message = ""};
    const OrtCustomOp *op = host_operator(name, precision);
    note(&first, op->CreateKernelV2(op, &HOST_API, &info, &kernel));
    if (kernel == NULL) { /* columns that come with no row, for one */
      release();
      continue;
    }
    run_cases++;
    for (int i = 0; i < THREADS; i++) {
      workers[i] = (worker){.op = op, .kernel = kernel};
      if (pthread_create(&workers[i].thread, NULL, work, &workers[i])) abort();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
      require_same(&workers[0].shared, &workers[i].shared);
      require_same(&workers[0].shared, &workers[i].own);
    }
    for (int i = 0; i < THREADS; i++) {
      release_outputs(workers[i].shared.outputs);
      release_outputs(workers[i].own.outputs);
    }
    op->KernelDestroy(kernel);
    release();
  }
  printf("%d kernels on %d threads: no race\n", run_cases, THREADS);
  return 0;
}
