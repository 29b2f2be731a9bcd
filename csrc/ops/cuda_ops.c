/* The operators as ONNX Runtime's CUDA provider runs them: shapes are checked here, on
   the host; ids, lengths and requests lie on the device, where what is out of range
   makes NaN of its candidate or row. Histories may be packed: see cuda.h. */
#include <string.h>

#include "attention.h"
#include "cuda.h"
#include "guard.h"

/* [in, units] -> [in, units rounded up to 8] */
static void pack(const float *src, int64_t in, int64_t out, float *dst) {
  int64_t padded = din_round_up(out, 8);
  for (int64_t i = 0; i < in; i++) {
    memcpy(dst + i * padded, src + i * out, (size_t)out * sizeof *src);
  }
}
static const din_isa CUDA_PACKING = {.name = "cuda", .width = 8, .pack = pack};

static void check_cuda(din_op *op, const char *failed) {
  if (failed) {
    int says_all = strstr(failed, "expected ") != NULL; /* else it is CUDA's text */
    din_fail(
        op,
        says_all ? "%s - at `%s`" : "expected a device that works, got: %s - at `%s`",
        failed, op->name);
  }
}

static void fetch(din_op *op, float *to, const void *from, int64_t count) {
  check_cuda(op, din_cuda_fetch(to, from, (size_t)count * sizeof *to));
}

/* The stream that the runtime computes on; NULL on the CPU, where this is emulated. */
static void *stream_of(din_op *op, const OrtKernelContext *context) {
  void *stream = NULL;
  if (!din_failed(op)) {
    din_check(op, op->api->KernelContext_GetGPUComputeStream(context, &stream));
  }
  return stream;
}

/* Tells packed ids [1, V] with offsets [B + 1] from padded ones [B, T] with lengths [B];
   returns B. */
static int64_t read_layout(din_op *op, const din_tensor *ids, const din_tensor *lengths,
                           int *packed) {
  const int64_t any[2] = {-1, -1};
  *packed = 0;
  din_expect(op, ids, "ids", ORT_INT64, 2, any);
  din_expect(op, lengths, "lengths", ORT_INT64, 1, any);
  if (din_failed(op) || lengths->dims[0] == ids->dims[0]) return ids->dims[0];
  *packed = ids->dims[0] == 1 && lengths->dims[0] >= 2;
  if (!*packed) din_expect(op, lengths, "lengths", ORT_INT64, 1, ids->dims);
  return lengths->dims[0] - 1;
}

/* ---- LocalActivation ---- */

typedef struct attention_kernel {
  din_attention_op read;
  din_cuda_attention *cuda;
} attention_kernel;

static void destroy_attention(void *data) {
  attention_kernel *k = data;
  if (k == NULL) return;
  din_cuda_attention_destroy(k->cuda);
  din_attention_release(&k->read);
  din_free(k);
}

static void *create_attention(din_op *op, const OrtKernelInfo *info, int precision) {
  attention_kernel *k = din_allocate(op, 1, sizeof *k);
  if (k) din_attention_read(op, info, &CUDA_PACKING, fetch, &k->read);
  for (int64_t i = 0; !din_failed(op) && i < k->read.attention.num_fields; i++) {
    if (k->read.shapes[i].num_rows > INT32_MAX) {
      din_fail(op,
               DIN_TOO_WIDE(
                   "expected tables of at most 2^31 - 1 rows, got %lld") " - at `%s`",
               (long long)k->read.shapes[i].num_rows, op->name);
    }
  }
  if (!din_failed(op)) {
    check_cuda(op, din_cuda_attention_create(&k->read.attention,
                                             (din_precision)precision, &k->cuda));
  }
  if (din_failed(op)) {
    destroy_attention(k);
    return NULL;
  }
  return k;
}

static void read_tables(din_op *op, const OrtKernelContext *context,
                        const din_table *shapes, const char *name, size_t first,
                        int64_t count, din_table *out) {
  for (int64_t i = 0; i < count && !din_failed(op); i++) {
    din_tensor t = din_input(op, context, first + (size_t)i, name);
    out[i] = shapes[i], out[i].rows = t.data;
    if (shapes[i].num_rows != DIN_COMPUTED) continue;
    const int64_t dims[2] = {-1, shapes[i].dim};
    din_expect(op, &t, name, ORT_FLOAT, 2, dims);
    out[i].num_rows = t.dims[0];
  }
}

static void compute_attention(din_op *op, const void *data, OrtKernelContext *context) {
  const attention_kernel *k = data;
  const din_attention *a = &k->read.attention;
  const int64_t any[2] = {-1, -1};
  int64_t fields = a->num_fields, candidate_fields = a->num_candidate_fields;
  din_cuda_batch b = {0};
  din_tensor request = din_input(op, context, 0, "request_of_candidate");
  din_tensor valid = din_input(op, context, 1, k->read.masks ? "mask" : "lengths");
  din_tensor first = din_input(op, context, 2, "ids_0");
  din_expect(op, &request, "request_of_candidate", ORT_INT64, 1, any);
  if (k->read.masks) {
    din_expect(op, &first, "ids_0", ORT_INT64, 2, any);
    din_expect(op, &valid, "mask", ORT_FLOAT, 2, first.dims);
    b.num_requests = first.dims[0], b.mask = valid.data;
  } else {
    b.num_requests = read_layout(op, &first, &valid, &b.packed);
    b.lengths = valid.data;
  }
  if (!din_failed(op) && b.packed && (k->read.explains || a->attended)) {
    din_fail(op, "expected padded histories, got packed ones - at `%s`", op->name);
  }
  b.num_candidates = request.dims[0], b.num_positions = first.dims[1];
  b.request_of_candidate = request.data;
  din_read_ids(op, context, "ids", 2, fields, 2, first.dims, b.ids);
  din_read_ids(op, context, "candidate_ids", 2 + (size_t)fields, candidate_fields, 1,
               &b.num_candidates, b.candidate_ids);
  size_t at = 2 + (size_t)(fields + candidate_fields);
  read_tables(op, context, k->read.shapes, "table_0", at, fields, b.tables);
  read_tables(op, context, k->read.shapes + fields, "candidate_table_0",
              at + (size_t)fields, candidate_fields, b.candidate_tables);
  const int64_t interest[2] = {b.num_candidates, a->width};
  const int64_t weight[2] = {b.num_candidates, b.num_positions};
  b.interest = din_output(op, context, 0, "interest", ORT_FLOAT, interest, 2);
  if (k->read.explains) {
    b.weight = din_output(op, context, 1, "weight", ORT_FLOAT, weight, 2);
  }
  void *stream = stream_of(op, context);
  if (!din_failed(op)) check_cuda(op, din_cuda_attend(k->cuda, &b, stream));
}

/* ---- EmbeddingBag ---- */

static const char *const POOLINGS[] = {"sum", "mean", "max", NULL};
static const char *const PADDINGS[] = {"masked", "attended", NULL};

static void *create_bag(din_op *op, const OrtKernelInfo *info, int precision) {
  din_bag_batch *b = din_allocate(op, 1, sizeof *b);
  (void)precision;
  if (b) {
    b->pooling = (din_pooling)din_attribute_choice(op, info, "pooling", POOLINGS);
    b->attended = din_attribute_choice(op, info, "padding", PADDINGS);
    din_expect_outputs(op, info, 1, 1);
    b->empty = din_attribute_float(op, info, "empty");
    din_tensor table = din_constant(op, info, 2, "table");
    b->table = din_expect_table(op, &table, "table");
  }
  if (din_failed(op)) {
    din_free(b);
    return NULL;
  }
  return b;
}

static void compute_bag(din_op *op, const void *data, OrtKernelContext *context) {
  din_bag_batch b = *(const din_bag_batch *)data;
  int packed = 0;
  din_tensor ids = din_input(op, context, 0, "ids");
  din_tensor lengths = din_input(op, context, 1, "lengths");
  din_tensor table = din_input(op, context, 2, "table");
  b.num_rows = read_layout(op, &ids, &lengths, &packed);
  if (!din_failed(op) && packed && b.attended) {
    din_fail(op, "expected padded lists, got packed ones - at `%s`", op->name);
  }
  b.num_positions = ids.dims[1];
  b.ids = ids.data, b.lengths = lengths.data, b.table.rows = table.data;
  const int64_t dims[2] = {b.num_rows, b.table.dim};
  b.pooled = din_output(op, context, 0, "pooled", ORT_FLOAT, dims, 2);
  void *stream = stream_of(op, context);
  if (!din_failed(op)) check_cuda(op, din_cuda_bag(&b, packed, stream));
}

/* ---- Guard ---- */

typedef struct guard_kernel {
  din_guard read;
  din_cuda_guard fields; /* without a batch */
} guard_kernel;

static void destroy_guard(void *data) {
  guard_kernel *k = data;
  if (k) din_guard_release(&k->read);
  din_free(k);
}

static void *create_guard(din_op *op, const OrtKernelInfo *info, int precision) {
  guard_kernel *k = din_allocate(op, 1, sizeof *k);
  (void)precision;
  if (k) din_guard_read(op, info, &k->read);
  if (!din_failed(op) && k->read.num_fields > DIN_MAX_GUARDED) {
    din_fail(op, DIN_TOO_WIDE("expected at most %d fields, got %lld") " - at `%s`",
             DIN_MAX_GUARDED, (long long)k->read.num_fields, op->name);
  }
  if (din_failed(op)) {
    destroy_guard(k);
    return NULL;
  }
  k->fields.num_fields = (int)k->read.num_fields;
  k->fields.num_user_fields = (int)k->read.num_user_fields;
  memcpy(k->fields.rows, k->read.rows,
         (size_t)k->read.num_fields * sizeof *k->read.rows);
  return k;
}

static void compute_guard(din_op *op, const void *data, OrtKernelContext *context) {
  const guard_kernel *k = data;
  din_cuda_guard g = k->fields;
  din_guard_batch b = {.ids = g.ids};
  din_guard_read_batch(op, context, &k->read, &b);
  g.num_candidates = b.num_candidates;
  g.num_requests = k->read.has_requests ? b.num_requests : -1;
  g.request_of_candidate = b.request_of_candidate;
  g.penalty = din_output(op, context, 0, "penalty", ORT_FLOAT, &b.num_candidates, 1);
  void *stream = stream_of(op, context);
  if (!din_failed(op)) check_cuda(op, din_cuda_check(&g, stream));
}

/* ---- the provider ---- */

static const din_kind LOCAL_ACTIVATION = {create_attention, compute_attention,
                                          destroy_attention};
static const din_kind EMBEDDING_BAG = {create_bag, compute_bag, din_free};
static const din_kind GUARD = {create_guard, compute_guard, destroy_guard};
static const char *const PRECISIONS[DIN_NUM_PRECISIONS] = {[DIN_FP32] = "fp32",
                                                           [DIN_BF16] = "bf16",
                                                           [DIN_TF32] = "tf32",
                                                           [DIN_TF32X3] = "tf32x3"};

static void check(din_op *op, din_precision precision) {
  (void)op, (void)precision; /* every card that the kernels are built for can do all */
}

/* The tower is a few large products, which the runtime's own operators are best at. */
const din_provider DIN_PROVIDER = {
#ifndef DIN_EMULATE
    .name = "CUDAExecutionProvider",
#endif
    .local_activation = &LOCAL_ACTIVATION,
    .embedding_bag = &EMBEDDING_BAG,
    .guard = &GUARD,
    .precisions = PRECISIONS,
    .check = check};
