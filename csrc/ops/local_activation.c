/* LocalActivation as an operator of ONNX Runtime.

   Inputs, in order (F behavior fields, S candidate fields, L hidden layers):

     request_of_candidate [N], lengths [B]                                   int64
     ids_i [B, T] x F, candidate_ids_i [N] x S                               int64
     table_i [rows, d_i] x F, candidate_table_i x S                          float, half
     weight_query, weight_behavior [D, H1], (weight_product [D, H1]),
     (weight_outer [D, D * H1]), bias_1 [H1], (parameters [H1])              float
     weight_l [H, H'], bias_l [H'], (parameters [H']) for l = 2 .. L + 1     float

   Outputs: interest [N, D], and weight [N, T] where the model explains.

   What it computes for candidate n of request b, history k_0 .. k_{len-1}:

     q = the candidate's rows                     W = behavior + diag(q) product (+
   outer) x = activation(k W + (q query + bias_1))     O(D H) once, then O(len D H) x =
   activation(x weight_l + bias_l)          l = 2 .. L s = scale * out(x weight_{L+1} +
   bias)       weights: s, or softmax of s interest = sum over t of s_t k_t
*/
#include <stdio.h>
#include <string.h>

#include "op.h"

#define MAX_NAME 40

typedef struct kernel {
  const din_isa *isa;
  din_attention attention;
  int64_t num_inputs;
  int explains;
  int64_t *slots;
  din_table *shapes; /* of the tables, then the candidate tables; rows is unused */
  din_layer *layers;
  void **memory; /* all packed arrays */
  int64_t num_memory, max_memory;
  din_pool *pool;
} kernel;

static const char *const ACTIVATIONS[] = {"none",  "relu", "sigmoid",  "silu",
                                          "prelu", "dice", "row_dice", NULL};
static const char *const OUTPUT_ACTIVATIONS[] = {"none", "relu", "sigmoid", "silu",
                                                 NULL};
static const char *const PADDINGS[] = {"masked", "attended", NULL};
static const char *const EMPTIES[] = {"zero", "padding_row", NULL};

static void destroy(void *data) {
  kernel *k = data;
  if (k == NULL) return;
  for (int64_t i = 0; i < k->num_memory; i++) din_free(k->memory[i]);
  din_pool_destroy(k->pool);
  din_free(k->memory);
  din_free(k->slots);
  din_free(k->shapes);
  din_free(k->layers);
  din_free(k);
}

static float *keep(din_op *op, kernel *k, int64_t count) {
  float *memory = din_allocate(op, count, sizeof(float));
  if (memory) k->memory[k->num_memory++] = memory;
  return memory;
}

/* Reads constants one after the other, checking each shape. */
typedef struct reader {
  din_op *op;
  const OrtKernelInfo *info;
  kernel *k;
  size_t next;
} reader;

static const float *read_floats(reader *r, const char *name, size_t rank, int64_t rows,
                                int64_t columns) {
  const int64_t dims[2] = {rows, columns};
  din_tensor t = din_constant(r->op, r->info, r->next++, name);
  din_expect(r->op, &t, name, ORT_FLOAT, rank, rank == 1 ? &dims[1] : dims);
  return din_failed(r->op) ? NULL : t.data;
}

/* bf16 again, where the instruction set multiplies so */
static const uint16_t *halve(reader *r, const float *packed, int64_t in,
                             int64_t strips) {
  const din_isa *isa = r->k->isa;
  if (packed == NULL || isa->pack_half == NULL) return NULL;
  float *memory = keep(r->op, r->k, din_half_size(in, strips, isa->width) / 2);
  if (memory == NULL) return NULL;
  isa->pack_half(packed, NULL, NULL, in, strips, (uint16_t *)(void *)memory);
  return (const uint16_t *)(const void *)memory;
}

static const float *read_matrix(reader *r, const char *name, int64_t in, int64_t out) {
  int64_t width = r->k->isa->width;
  const float *src = read_floats(r, name, 2, in, out);
  float *packed = keep(r->op, r->k, din_round_up(out, width) * in);
  if (packed) r->k->isa->pack(src, in, out, packed);
  return packed;
}

/* [units] -> padded with zeros, times `factor`, plus `offset` */
static const float *pad_vector(reader *r, const float *src, int64_t units, float factor,
                               float offset) {
  float *packed = keep(r->op, r->k, din_round_up(units, r->k->isa->width));
  if (packed == NULL) return NULL;
  for (int64_t i = 0; i < units; i++) packed[i] = src[i] * factor + offset;
  return packed;
}

static const float *read_vector(reader *r, const char *name, int64_t units) {
  const float *src = read_floats(r, name, 1, 0, units);
  return src ? pad_vector(r, src, units, 1.0f, 0.0f) : NULL;
}

static void read_parameters(reader *r, din_layer *layer, din_activation activation,
                            int64_t number) {
  static const char *const dice[] = {"dice_scale", "dice_shift", "dice_alpha"};
  const float log2e = 1.44269504088896341f, *src;
  char name[MAX_NAME];
  int64_t h = layer->out;
  if (activation == DIN_DICE) {
    for (int i = 0; i < 3; i++) {
      snprintf(name, sizeof name, "%s_%lld", dice[i], (long long)number);
      src = read_floats(r, name, 1, 0, h);
      if (src == NULL) return;
      layer->p[i] = pad_vector(r, src, h, i < 2 ? -log2e : 1.0f, 0.0f);
      if (i == 2) layer->p[3] = pad_vector(r, src, h, -1.0f, 1.0f);
    }
  } else if (activation == DIN_ROW_DICE) {
    snprintf(name, sizeof name, "dice_alpha_%lld", (long long)number);
    src = read_floats(r, name, 1, 0, h);
    if (src == NULL) return;
    layer->p[0] = pad_vector(r, src, h, 1.0f, 0.0f);
    layer->p[1] = pad_vector(r, src, h, -1.0f, 1.0f);
    layer->p[2] = pad_vector(r, src, h, 0.0f, 1.0f);
  } else if (activation == DIN_PRELU) {
    snprintf(name, sizeof name, "slope_%lld", (long long)number);
    layer->p[0] = read_vector(r, name, h);
  }
}

/* The width of each layer is the size of its bias. */
static int64_t read_width(reader *r, size_t index, const char *name) {
  const int64_t any[2] = {-1, -1};
  din_tensor t = din_constant(r->op, r->info, index, name);
  din_expect(r->op, &t, name, ORT_FLOAT, 2, any);
  if (!din_failed(r->op) && t.dims[1] < 1) {
    din_fail(r->op, "expected at least 1 unit, got %lld - at `%s input %s`",
             (long long)t.dims[1], r->op->name, name);
  }
  return din_failed(r->op) ? 0 : t.dims[1];
}

/* Shapes of tables, once: they are constants. */
static int64_t read_tables(reader *r, const char *label, int64_t count,
                           din_table *out) {
  char name[MAX_NAME];
  int64_t width = 0;
  for (int64_t i = 0; i < count && !din_failed(r->op); i++) {
    snprintf(name, sizeof name, "%s_%lld", label, (long long)i);
    din_tensor t = din_constant(r->op, r->info, r->next++, name);
    out[i] = din_expect_table(r->op, &t, name);
    if (!din_failed(r->op) && (out[i].dim < 1 || out[i].dim > INT32_MAX)) {
      din_fail(r->op, "expected rows of at least 1 value, got %lld - at `%s input %s`",
               (long long)out[i].dim, r->op->name, name);
    }
    width += out[i].dim;
  }
  return width;
}

static void read_slots(din_op *op, const OrtKernelInfo *info, kernel *k, size_t count) {
  din_attention *a = &k->attention;
  k->slots = din_allocate(op, (int64_t)count, sizeof(int64_t));
  count = din_attribute_ints(op, info, "query_slots", k->slots, count);
  a->slots = k->slots;
  a->num_slots = (int64_t)count;
  for (size_t i = 0; i < count && !din_failed(op); i++) {
    int64_t slot = k->slots[i];
    if (slot < -INT32_MAX || slot > a->num_candidate_fields) {
      din_fail(op,
               "expected candidate fields in order, or widths of zeros, got %lld - at "
               "`%s attribute query_slots`",
               (long long)slot, op->name);
    }
    if (slot >= 0)
      a->num_candidate_fields =
          slot + 1 > a->num_candidate_fields ? slot + 1 : a->num_candidate_fields;
  }
}

static int has_interaction(const char *all, const char *one) {
  size_t length = strlen(one);
  for (const char *at = all; (at = strstr(at, one)) != NULL; at += length) {
    int starts = at == all || at[-1] == ',';
    int ends = at[length] == '\0' || at[length] == ',';
    if (starts && ends) return 1;
  }
  return 0;
}

static void read_layers(reader *r, const char *interactions) {
  din_attention *a = &r->k->attention;
  int64_t d = a->width, h = read_width(r, r->next, "weight_query");
  int has_outer = has_interaction(interactions, "outer");
  char name[MAX_NAME];
  a->weight_query = read_matrix(r, "weight_query", d, h);
  r->k->layers[0].weight = read_matrix(r, "weight_behavior", d, h);
  if (has_interaction(interactions, "product")) {
    a->weight_product = read_matrix(r, "weight_product", d, h);
  }
  if (has_outer) {
    const float *src = read_floats(r, "weight_outer", 2, d, d * h);
    int64_t width = r->k->isa->width, size = din_round_up(h, width) * d;
    float *packed = d > INT32_MAX / (h ? h : 1) ? NULL : keep(r->op, r->k, size * d);
    for (int64_t i = 0; packed && i < d; i++) {
      r->k->isa->pack(src + i * d * h, d, h, packed + i * size);
    }
    a->weight_outer = packed;
  }
  for (int64_t l = 0; l < a->num_layers && !din_failed(r->op); l++) {
    din_layer *layer = &r->k->layers[l];
    int64_t in = l ? h : d;
    if (l) {
      snprintf(name, sizeof name, "weight_%lld", (long long)l + 1);
      h = read_width(r, r->next, name);
      layer->weight = read_matrix(r, name, in, h);
    }
    snprintf(name, sizeof name, "bias_%lld", (long long)l + 1);
    layer->in = in, layer->out = h;
    layer->strips = din_round_up(h, r->k->isa->width) / r->k->isa->width;
    layer->bias = read_vector(r, name, h);
    read_parameters(r, layer, a->activation, l + 1);
    layer->half_weight = halve(r, layer->weight, in, layer->strips);
    int64_t padded = layer->strips * r->k->isa->width;
    if (padded > a->max_padded_units) a->max_padded_units = padded;
  }
}

/* The layer to one unit; without hidden layers it is layer 1, and `dot` only copies. */
static void read_dot(reader *r, int64_t num_hidden) {
  din_attention *a = &r->k->attention;
  const float one = 1.0f, *src;
  char name[MAX_NAME];
  if (din_failed(r->op)) return;
  int64_t units = r->k->layers[a->num_layers - 1].out;
  if (num_hidden == 0) {
    if (units != 1) {
      din_fail(r->op, "expected 1 unit in the last layer, got %lld - at `%s`",
               (long long)units, r->op->name);
    }
    a->dot = pad_vector(r, &one, 1, 1.0f, 0.0f);
    return;
  }
  snprintf(name, sizeof name, "weight_%lld", (long long)num_hidden + 1);
  src = read_floats(r, name, 2, units, 1);
  a->dot = src ? pad_vector(r, src, units, 1.0f, 0.0f) : NULL;
  snprintf(name, sizeof name, "bias_%lld", (long long)num_hidden + 1);
  src = read_floats(r, name, 1, 0, 1);
  a->dot_bias = src ? src[0] : 0.0f;
}

static void read_kernel(din_op *op, const OrtKernelInfo *info, int use_bf16,
                        kernel *k) {
  din_attention *a = &k->attention;
  char interactions[64];
  size_t num_inputs = 0, num_outputs = 0;
  din_check(op, op->api->KernelInfo_GetInputCount(info, &num_inputs));
  din_check(op, op->api->KernelInfo_GetOutputCount(info, &num_outputs));
  k->isa = use_bf16 ? din_find_half_isa() : din_chosen_isa(op);
  a->num_fields = din_attribute_int(op, info, "num_fields");
  int64_t num_hidden = din_attribute_int(op, info, "num_layers") - 1;
  a->activation =
      (din_activation)din_attribute_choice(op, info, "activation", ACTIVATIONS);
  a->output_activation = (din_activation)din_attribute_choice(
      op, info, "output_activation", OUTPUT_ACTIVATIONS);
  a->epsilon = din_attribute_float(op, info, "epsilon");
  a->scale = din_attribute_float(op, info, "scale");
  a->softmax = din_attribute_int(op, info, "softmax") != 0;
  a->attended = din_attribute_choice(op, info, "padding", PADDINGS);
  a->padding_row =
      !a->attended && din_attribute_choice(op, info, "empty_softmax", EMPTIES);
  din_attribute_text(op, info, "interactions", interactions, sizeof interactions);
  if (din_failed(op)) return;
  if (a->num_fields < 1 || num_hidden < 0 || (uint64_t)a->num_fields > num_inputs ||
      (uint64_t)num_hidden > num_inputs || num_outputs < 1 || num_outputs > 2) {
    din_fail(op,
             "expected attributes that fit %zu inputs, got %lld fields and %lld "
             "layers - at `%s`",
             num_inputs, (long long)a->num_fields, (long long)num_hidden + 1, op->name);
    return;
  }
  k->explains = num_outputs == 2;
  read_slots(op, info, k, num_inputs);
  if (din_failed(op)) return;
  int64_t num_tables = a->num_fields + a->num_candidate_fields;
  k->num_inputs = (int64_t)num_inputs;
  k->max_memory = 3 * k->num_inputs + 8;
  k->memory = din_allocate(op, k->max_memory, sizeof(void *));
  k->shapes = din_allocate(op, num_tables, sizeof(din_table));
  a->num_layers = num_hidden ? num_hidden : 1;
  if (num_hidden == 0) a->activation = DIN_NONE;
  k->layers = din_allocate(op, a->num_layers, sizeof(din_layer));
  if (din_failed(op)) return;
  a->layers = k->layers;
  reader r = {op, info, k, (size_t)(2 + num_tables)};
  a->width = read_tables(&r, "table", a->num_fields, k->shapes);
  int64_t query_width = read_tables(&r, "candidate_table", a->num_candidate_fields,
                                    k->shapes + a->num_fields);
  for (int64_t s = 0; s < a->num_slots; s++) {
    if (k->slots[s] < 0) query_width -= k->slots[s];
  }
  if (!din_failed(op) && (query_width != a->width || a->width > INT32_MAX)) {
    din_fail(op, "expected a query as wide as a behavior, %lld, got %lld - at `%s`",
             (long long)a->width, (long long)query_width, op->name);
  }
  if (din_failed(op)) return;
  a->padded_width = din_round_up(a->width, k->isa->width);
  read_layers(&r, interactions);
  read_dot(&r, num_hidden);
  if (!din_failed(op) && r.next != num_inputs) {
    din_fail(op, "expected %zu inputs, got %zu - at `%s`", r.next, num_inputs,
             op->name);
  }
  if (din_failed(op)) return;
  k->pool = din_pool_create(op, din_attention_scratch(a, k->isa->width));
}

static void *create(din_op *op, const OrtKernelInfo *info, int use_bf16) {
  kernel *k = din_allocate(op, 1, sizeof *k);
  if (k) read_kernel(op, info, use_bf16, k);
  if (din_failed(op)) {
    destroy(k);
    return NULL;
  }
  return k;
}

/* ---- a run ---- */

typedef struct run {
  const kernel *k;
  din_attention_batch batch;
} run;

static int attend(const void *data, int64_t first, int64_t last, float *scratch,
                  din_fault *fault) {
  const run *r = data;
  return r->k->isa->attend(&r->k->attention, &r->batch, first, last, scratch, fault);
}

/* Behaviors to attend, and what a candidate costs beside them. */
static int64_t cost_of(const void *data, int64_t n) {
  const run *r = data;
  const din_attention_batch *b = &r->batch;
  if (r->k->attention.attended) return b->num_positions + 3;
  return b->lengths[b->request_of_candidate[n]] + 3;
}
#define CHUNK_COST 128 /* some 30 microseconds for a usual model */

static void read_ids(din_op *op, const OrtKernelContext *context, const char *label,
                     size_t first, int64_t count, size_t rank, const int64_t *dims,
                     const int64_t **out) {
  char name[MAX_NAME];
  for (int64_t i = 0; i < count && !din_failed(op); i++) {
    snprintf(name, sizeof name, "%s_%lld", label, (long long)i);
    din_tensor t = din_input(op, context, first + (size_t)i, name);
    din_expect(op, &t, name, ORT_INT64, rank, dims);
    out[i] = t.data;
  }
}

static void read_batch(din_op *op, const OrtKernelContext *context, const kernel *k,
                       din_attention_batch *b, const int64_t **ids, din_table *tables) {
  const din_attention *a = &k->attention;
  const int64_t any[2] = {-1, -1};
  int64_t fields = a->num_fields, candidate_fields = a->num_candidate_fields;
  din_tensor request = din_input(op, context, 0, "request_of_candidate");
  din_tensor lengths = din_input(op, context, 1, "lengths");
  din_tensor first = din_input(op, context, 2, "ids_0");
  din_expect(op, &request, "request_of_candidate", ORT_INT64, 1, any);
  din_expect(op, &lengths, "lengths", ORT_INT64, 1, any);
  din_expect(op, &first, "ids_0", ORT_INT64, 2, any);
  b->num_candidates = request.dims[0], b->num_requests = lengths.dims[0];
  b->num_positions = first.dims[1];
  b->request_of_candidate = request.data, b->lengths = lengths.data;
  const int64_t history[2] = {b->num_requests, b->num_positions};
  read_ids(op, context, "ids", 2, fields, 2, history, ids);
  read_ids(op, context, "candidate_ids", 2 + (size_t)fields, candidate_fields, 1,
           &b->num_candidates, ids + fields);
  size_t at = 2 + (size_t)(fields + candidate_fields);
  for (int64_t i = 0; i < fields + candidate_fields && !din_failed(op); i++) {
    const OrtValue *value = NULL;
    void *rows = NULL;
    din_check(op, op->api->KernelContext_GetInput(context, at + (size_t)i, &value));
    if (din_failed(op)) break;
    din_check(op, op->api->GetTensorMutableData((OrtValue *)(uintptr_t)value, &rows));
    tables[i] = k->shapes[i];
    tables[i].rows = rows;
  }
  din_check_range(op, b->lengths, b->num_requests, b->num_positions + 1, "lengths");
  din_check_range(op, b->request_of_candidate, b->num_candidates, b->num_requests,
                  "request_of_candidate");
  b->ids = ids, b->candidate_ids = ids + fields;
  b->tables = tables, b->candidate_tables = tables + fields;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const din_attention *a = &k->attention;
  int64_t num_tables = a->num_fields + a->num_candidate_fields;
  run r = {.k = k};
  din_fault fault;
  const int64_t **ids = din_allocate(op, num_tables, sizeof *ids);
  din_table *tables = din_allocate(op, num_tables, sizeof *tables);
  if (!din_failed(op)) read_batch(op, context, k, &r.batch, ids, tables);
  const int64_t interest[2] = {r.batch.num_candidates, a->width};
  const int64_t weight[2] = {r.batch.num_candidates, r.batch.num_positions};
  r.batch.interest = din_output(op, context, 0, interest, 2);
  if (k->explains) r.batch.weight = din_output(op, context, 1, weight, 2);
  const din_work work = {.run = attend,
                         .data = &r,
                         .total = r.batch.num_candidates,
                         .cost = cost_of,
                         .chunk_cost = CHUNK_COST,
                         .pool = k->pool};
  if (din_run(op, context, &work, &fault)) {
    char place[MAX_NAME] = "";
    if (!fault.is_candidate) {
      snprintf(place, sizeof place, ", %lld", (long long)fault.position);
    }
    din_fail(op,
             "expected an id in [0, %lld), got %lld - at `%s input %s_%lld[%lld%s]`",
             (long long)fault.num_rows, (long long)fault.id, op->name,
             fault.is_candidate ? "candidate_ids" : "ids", (long long)fault.field,
             (long long)fault.row, place);
  }
  din_free(ids);
  din_free(tables);
}

const din_kind din_local_activation = {create, compute, destroy};
