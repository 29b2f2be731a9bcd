/* Dice as an operator of ONNX Runtime, for the layers of the tower:
   y = x * (alpha + (1 - alpha) * sigmoid(x * scale + shift)).

   Inputs: x [N, H], then the constants scale, shift, alpha [H]; all float. Output: y.
*/
#include "op.h"

typedef struct kernel {
  const din_isa *isa;
  din_layer layer;
  float *memory; /* p[0] .. p[3], each padded to the vectors' width */
  din_pool *pool;
} kernel;

static void destroy(void *data) {
  kernel *k = data;
  if (k) {
    din_pool_destroy(k->pool);
    din_free(k->memory);
  }
  din_free(k);
}

static void read_kernel(din_op *op, const OrtKernelInfo *info, kernel *k) {
  static const char *const names[] = {"scale", "shift", "alpha"};
  const float log2e = 1.44269504088896341f;
  int64_t units = -1, padded = 0;
  k->isa = din_chosen_isa(op);
  for (size_t i = 0; i < 3 && !din_failed(op); i++) {
    din_tensor t = din_constant(op, info, i + 1, names[i]);
    din_expect(op, &t, names[i], ORT_FLOAT, 1, &units);
    if (din_failed(op)) return;
    if (i == 0) {
      units = t.dims[0];
      padded = din_round_up(units, k->isa->width);
      k->memory = din_allocate(op, 4 * padded, sizeof(float));
    }
    for (int64_t h = 0; k->memory && h < units; h++) {
      float value = ((const float *)t.data)[h];
      k->memory[(int64_t)i * padded + h] = i < 2 ? -log2e * value : value;
      if (i == 2) k->memory[3 * padded + h] = 1.0f - value;
    }
  }
  if (din_failed(op)) return;
  k->layer.out = units, k->layer.strips = padded / k->isa->width;
  for (int i = 0; i < 4; i++) k->layer.p[i] = k->memory + i * padded;
  k->pool = din_pool_create(op, 1);
}

static void *create(din_op *op, const OrtKernelInfo *info, int use_bf16) {
  kernel *k = din_allocate(op, 1, sizeof *k);
  (void)use_bf16;
  if (k) read_kernel(op, info, k);
  if (din_failed(op)) {
    destroy(k);
    return NULL;
  }
  return k;
}

typedef struct run {
  const kernel *k;
  const float *x;
  float *y;
} run;

static int activate(const void *data, int64_t first, int64_t last, float *scratch,
                    din_fault *fault) {
  const run *r = data;
  int64_t at = first * r->k->layer.out;
  (void)scratch, (void)fault;
  r->k->isa->dice(&r->k->layer, r->x + at, r->y + at, last - first);
  return 0;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const int64_t dims[2] = {-1, k->layer.out};
  run r = {.k = k};
  din_fault fault;
  din_tensor x = din_input(op, context, 0, "x");
  din_expect(op, &x, "x", ORT_FLOAT, 2, dims);
  r.x = x.data;
  r.y = din_output(op, context, 0, x.dims, 2);
  const din_work work = {.run = activate,
                         .data = &r,
                         .total = x.dims[0],
                         .even_cost = k->layer.out + 1,
                         .chunk_cost = 16384,
                         .pool = k->pool};
  din_run(op, context, &work, &fault);
}

const din_kind din_dice = {create, compute, destroy};
