/* EmbeddingBag as an operator of ONNX Runtime: the rows of a table at the valid
   positions of each row of ids, pooled.

   Inputs: ids [R, T] int64, lengths [R] int64, table [rows, D] float or half
   (constant). Output: pooled [R, D]. Attributes: pooling, padding, empty (the value for
   no element).
*/
#include "op.h"

typedef struct kernel {
  const din_isa *isa;
  din_bag_batch batch; /* what does not change from run to run */
  din_pool *pool;
} kernel;

static const char *const POOLINGS[] = {"sum", "mean", "max", NULL};
static const char *const PADDINGS[] = {"masked", "attended", NULL};

static void destroy(void *data) {
  kernel *k = data;
  if (k) din_pool_destroy(k->pool);
  din_free(k);
}

static void *create(din_op *op, const OrtKernelInfo *info, int precision) {
  kernel *k = din_allocate(op, 1, sizeof *k);
  (void)precision;
  if (k) {
    k->isa = din_chosen_isa(op);
    din_expect_outputs(op, info, 1, 1);
    k->batch.pooling = (din_pooling)din_attribute_choice(op, info, "pooling", POOLINGS);
    k->batch.attended = din_attribute_choice(op, info, "padding", PADDINGS);
    k->batch.empty = din_attribute_float(op, info, "empty");
    din_tensor table = din_constant(op, info, 2, "table");
    k->batch.table = din_expect_table(op, &table, "table");
    if (!din_failed(op)) {
      k->pool = din_pool_create(op, din_bag_scratch(k->batch.table.dim, k->isa->width));
    }
  }
  if (din_failed(op)) {
    destroy(k);
    return NULL;
  }
  return k;
}

typedef struct run {
  const kernel *k;
  din_bag_batch batch;
} run;

static int pool(const void *data, int64_t first, int64_t last, float *scratch,
                din_fault *fault) {
  const run *r = data;
  return r->k->isa->bag(&r->batch, first, last, scratch, fault);
}

static int64_t cost_of(const void *data, int64_t row) {
  const din_bag_batch *b = &((const run *)data)->batch;
  return (b->attended ? b->num_positions : b->lengths[row]) + 1;
}
#define CHUNK_COST 2048

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const int64_t any[2] = {-1, -1};
  run r = {k, k->batch};
  din_bag_batch *b = &r.batch;
  din_fault fault;
  din_tensor ids = din_input(op, context, 0, "ids");
  din_tensor lengths = din_input(op, context, 1, "lengths");
  din_expect(op, &ids, "ids", ORT_INT64, 2, any);
  din_expect(op, &lengths, "lengths", ORT_INT64, 1, ids.dims);
  b->num_rows = ids.dims[0], b->num_positions = ids.dims[1];
  b->ids = ids.data;
  int64_t *kept = din_copy_range(op, lengths.data, lengths.dims[0],
                                 b->num_positions + 1, "lengths");
  b->lengths = kept;
  const int64_t dims[2] = {b->num_rows, b->table.dim};
  b->pooled = din_output(op, context, 0, "pooled", ORT_FLOAT, dims, 2);
  const din_work work = {.run = pool,
                         .data = &r,
                         .total = b->num_rows,
                         .cost = cost_of,
                         .chunk_cost = CHUNK_COST,
                         .pool = k->pool};
  if (din_run(op, context, &work, &fault)) {
    din_fail(op,
             "expected an id in [0, %lld), got %lld - at `%s input ids[%lld, %lld]`",
             (long long)fault.num_rows, (long long)fault.id, op->name,
             (long long)fault.row, (long long)fault.position);
  }
  din_free(kept);
}

const din_kind din_embedding_bag = {create, compute, destroy};
