/* Tower as an operator of ONNX Runtime: the layers behind the attention, to the logit.

   Inputs: x_0 [N, w_0] .. x_{I-1}, taken side by side; then the constants weight_1
   [sum of w_i, H1], bias_1 [H1], (parameters [H1]), weight_2 [H1, H2], .. to one unit.
   Output: logit [N]. Attributes: num_blocks (I), num_layers, activation, epsilon.
*/
#include <stdio.h>

#include "layers.h"

#define MAX_NAME 40

typedef struct kernel {
  const din_isa *isa;
  din_tower tower;
  din_kept kept;
  din_pool *pool;
  int64_t macs; /* multiplications of a row */
} kernel;

static void destroy(void *data) {
  kernel *k = data;
  if (k == NULL) return;
  din_release(&k->kept);
  din_pool_destroy(k->pool);
  din_free(k);
}

static void read_kernel(din_op *op, const OrtKernelInfo *info, kernel *k) {
  din_tower *t = &k->tower;
  size_t num_inputs = 0;
  din_check(op, op->api->KernelInfo_GetInputCount(info, &num_inputs));
  din_expect_outputs(op, info, 1, 1);
  k->isa = din_chosen_isa(op);
  t->num_blocks = din_attribute_int(op, info, "num_blocks");
  int64_t num_hidden = din_read_depth(op, info, num_inputs) - 1;
  t->mlp.activation =
      (din_activation)din_attribute_choice(op, info, "activation", DIN_ACTIVATIONS);
  t->mlp.epsilon = din_attribute_float(op, info, "epsilon");
  if (din_failed(op)) return;
  if (t->num_blocks < 1 || (uint64_t)t->num_blocks > num_inputs) {
    din_fail(op, "expected attributes that fit %zu inputs, got %lld blocks - at `%s`",
             num_inputs, (long long)t->num_blocks, op->name);
    return;
  }
  const int64_t any[2] = {-1, -1};
  din_reader r = {op, info, k->isa, &k->kept, (size_t)t->num_blocks, NULL};
  din_tensor first = din_constant(op, info, r.next, "weight_1");
  din_expect(op, &first, "weight_1", ORT_FLOAT, 2, any);
  if (din_failed(op)) return;
  t->width = first.dims[0];
  if (t->width < 1) { /* any number of rows would be of no bytes */
    din_fail(op, "expected at least 1 row, got 0 - at `%s input weight_1`", op->name);
  }
  din_read_layers(&r, &t->mlp, num_hidden, t->width, NULL, 0);
  din_read_end(&r, num_inputs);
  if (din_failed(op)) return;
  k->macs = 1;
  for (int64_t l = 0; l < t->mlp.num_layers; l++) {
    k->macs += t->mlp.layers[l].in * t->mlp.layers[l].out;
  }
  k->pool = din_pool_create(op, din_tower_scratch(t, k->isa->width));
}

static void *create(din_op *op, const OrtKernelInfo *info, int precision) {
  kernel *k = din_allocate(op, 1, sizeof *k);
  (void)precision; /* bf16 is for the attention alone */
  if (k) read_kernel(op, info, k);
  if (din_failed(op)) {
    destroy(k);
    return NULL;
  }
  return k;
}

typedef struct run {
  const kernel *k;
  din_tower tower;
  din_tower_batch batch;
} run;

/* Items of work are blocks of DIN_TILE rows. */
static int climb(const void *data, int64_t first, int64_t last, float *scratch,
                 din_fault *fault) {
  const run *r = data;
  int64_t end =
      last * DIN_TILE < r->batch.num_rows ? last * DIN_TILE : r->batch.num_rows;
  (void)fault;
  r->k->isa->tower(&r->tower, &r->batch, first * DIN_TILE, end, scratch);
  return 0;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  int64_t count = k->tower.num_blocks, width = 0;
  run r = {.k = k, .tower = k->tower};
  din_fault fault;
  const float **x = din_allocate(op, count, sizeof *x);
  int64_t *widths = din_allocate(op, count, sizeof *widths);
  int64_t dims[2] = {-1, -1};
  for (int64_t i = 0; i < count && !din_failed(op); i++) {
    char name[MAX_NAME];
    snprintf(name, sizeof name, "x_%lld", (long long)i);
    din_tensor t = din_input(op, context, (size_t)i, name);
    din_expect(op, &t, name, ORT_FLOAT, 2, dims);
    dims[0] = t.dims[0]; /* all have the first one's rows */
    x[i] = t.data, widths[i] = t.dims[1];
    width += t.dims[1];
  }
  if (!din_failed(op) && width != k->tower.width) {
    din_fail(op, "expected %lld columns in all, got %lld - at `%s`",
             (long long)k->tower.width, (long long)width, op->name);
  }
  r.tower.widths = widths;
  r.batch.num_rows = dims[0], r.batch.x = x;
  r.batch.logit = din_output(op, context, 0, "logit", ORT_FLOAT, dims, 1);
  const din_work work = {.run = climb,
                         .data = &r,
                         .total = (r.batch.num_rows + DIN_TILE - 1) / DIN_TILE,
                         .even_cost = k->macs,
                         .chunk_cost = 16384, /* some 30 microseconds, or one block */
                         .pool = k->pool};
  if (!din_failed(op)) din_run(op, context, &work, &fault);
  din_free(x);
  din_free(widths);
}

const din_kind din_tower_op = {create, compute, destroy};
