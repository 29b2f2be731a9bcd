/* LocalActivation as an operator of ONNX Runtime.

   Inputs, in order (F behavior fields, S candidate fields, L hidden layers):

     request_of_candidate [N], lengths [B]                                   int64
       or, with padding "mask", mask [B, T] of 0 and 1                       float
     ids_i [B, T] x F, candidate_ids_i [N] x S                               int64
     table_i [rows, d_i] x F, candidate_table_i x S                          float, half
     weight_query, weight_behavior [D, H1], (weight_product [D, H1]),
     (weight_outer [D, D * H1]), bias_1 [H1], (parameters [H1])              float
     weight_l [H, H'], bias_l [H'], (parameters [H']) for l = 2 .. L + 1     float

   All but the ids, lengths and mask are constants of the graph. The only table of a side
   may be computed, though: then its width is D.

   Outputs: interest [N, D], and weight [N, T] where the model explains.

   What it computes for candidate n of request b, history k_0 .. k_{len-1}:

     q = the candidate's rows
     W = weight_behavior + diag(q) weight_product (+ q_i weight_outer_i)
     x = activation(k W + (q weight_query + bias_1))      O(D H) once, then O(len D H)
     x = activation(x weight_l + bias_l)                  l = 2 .. L
     s = scale * output_activation(x weight_{L+1} + bias) then softmax over t, if asked
     interest = sum over t of s_t k_t

   One file above 400 lines: an operator's checks are read best beside its inputs.
*/
#include <stdio.h>
#include <string.h>

#include "layers.h"

#define MAX_NAME 40
#define COMPUTED (-1)

typedef struct kernel {
  const din_isa *isa;
  din_attention attention;
  int explains, masks; /* masks: by a mask [B, T], not by lengths */
  int64_t *slots;
  /* of the tables, then the candidate tables; rows is unused, and num_rows is
     COMPUTED where the table is no constant */
  din_table *shapes;
  din_kept kept;
  din_pool *pool;
} kernel;

static const char *const OUTPUT_ACTIVATIONS[] = {"none", "relu", "sigmoid", "silu",
                                                 NULL};
static const char *const PADDINGS[] = {"masked", "attended", "mask", NULL};
static const char *const EMPTIES[] = {"zero", "padding_row", NULL};

static void destroy(void *data) {
  kernel *k = data;
  if (k == NULL) return;
  din_release(&k->kept);
  din_pool_destroy(k->pool);
  din_free(k->slots);
  din_free(k->shapes);
  din_free(k);
}

static int is_constant(din_op *op, const OrtKernelInfo *info, size_t index) {
  const OrtValue *value = NULL;
  int constant = 0;
  if (!din_failed(op)) {
    din_check(
        op, op->api->KernelInfoGetConstantInput_tensor(info, index, &constant, &value));
  }
  return constant;
}

/* Shapes of tables, once. A side's only table may be computed: it is `width` wide. */
static int64_t read_tables(din_reader *r, const char *label, int64_t count,
                           int64_t width, din_table *out) {
  char name[MAX_NAME];
  int64_t total = 0;
  if (count == 1 && !is_constant(r->op, r->info, r->next) && !din_failed(r->op)) {
    out[0] = (din_table){NULL, COMPUTED, width, 0};
    r->next++;
    return width;
  }
  for (int64_t i = 0; i < count && !din_failed(r->op); i++) {
    snprintf(name, sizeof name, "%s_%lld", label, (long long)i);
    din_tensor t = din_constant(r->op, r->info, r->next++, name);
    out[i] = din_expect_table(r->op, &t, name);
    total += out[i].dim;
  }
  return total;
}

/* D, which is the number of rows of weight_query. */
static int64_t read_width(din_reader *r, size_t index) {
  const int64_t any[2] = {-1, -1};
  din_tensor t = din_constant(r->op, r->info, index, "weight_query");
  din_expect(r->op, &t, "weight_query", ORT_FLOAT, 2, any);
  if (!din_failed(r->op) && (t.dims[0] < 1 || t.dims[0] > INT32_MAX)) {
    din_fail(r->op, "expected at least 1 row, got %lld - at `%s input weight_query`",
             (long long)t.dims[0], r->op->name);
  }
  return din_failed(r->op) ? 0 : t.dims[0];
}

static void read_slots(din_op *op, const OrtKernelInfo *info, kernel *k, size_t count) {
  din_attention *a = &k->attention;
  k->slots = din_allocate(op, (int64_t)count, sizeof(int64_t));
  count = din_attribute_ints(op, info, "query_slots", k->slots, count);
  a->slots = k->slots;
  a->num_slots = (int64_t)count;
  for (size_t i = 0; i < count && !din_failed(op); i++) {
    int64_t slot = k->slots[i];
    if (slot < -INT32_MAX || (slot >= 0 && slot != a->num_candidate_fields)) {
      din_fail(op,
               "expected candidate fields in order, or widths of zeros, got %lld - at "
               "`%s attribute query_slots`",
               (long long)slot, op->name);
    }
    if (slot >= 0) a->num_candidate_fields++;
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

static void read_weights(din_reader *r, kernel *k, const char *interactions,
                         int64_t num_hidden) {
  din_attention *a = &k->attention;
  int64_t d = a->width, h = din_read_width(r, "weight_query");
  a->weight_query = din_read_matrix(r, "weight_query", d, h);
  const float *behavior = din_read_matrix(r, "weight_behavior", d, h);
  if (has_interaction(interactions, "product")) {
    a->weight_product = din_read_matrix(r, "weight_product", d, h);
  }
  if (has_interaction(interactions, "outer")) {
    const float *src = din_read_floats(r, "weight_outer", 2, d, d * h);
    int64_t size = din_round_up(h, r->isa->width) * d;
    float *packed = src ? din_keep(r, size * d) : NULL;
    for (int64_t i = 0; packed && i < d; i++) {
      r->isa->pack(src + i * d * h, d, h, packed + i * size);
    }
    a->weight_outer = packed;
  }
  if (!din_failed(r->op)) din_read_layers(r, &a->mlp, num_hidden, d, behavior, h);
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
  int64_t num_hidden = din_read_depth(op, info, num_inputs) - 1;
  a->mlp.activation =
      (din_activation)din_attribute_choice(op, info, "activation", DIN_ACTIVATIONS);
  a->output_activation = (din_activation)din_attribute_choice(
      op, info, "output_activation", OUTPUT_ACTIVATIONS);
  a->mlp.epsilon = din_attribute_float(op, info, "epsilon");
  a->scale = din_attribute_float(op, info, "scale");
  a->softmax = din_attribute_int(op, info, "softmax") != 0;
  int padding = din_attribute_choice(op, info, "padding", PADDINGS);
  a->attended = padding == 1, k->masks = padding == 2;
  a->padding_row =
      padding == 0 && din_attribute_choice(op, info, "empty_softmax", EMPTIES);
  din_attribute_text(op, info, "interactions", interactions, sizeof interactions);
  if (din_failed(op)) return;
  if (a->num_fields < 1 || (uint64_t)a->num_fields > num_inputs || num_outputs > 2) {
    din_fail(op, "expected attributes that fit %zu inputs, got %lld fields - at `%s`",
             num_inputs, (long long)a->num_fields, op->name);
    return;
  }
  k->explains = num_outputs == 2;
  if (k->explains && k->masks) {
    din_fail(op, "expected lengths to show weights by, got a mask - at `%s output 1`",
             op->name);
    return;
  }
  read_slots(op, info, k, num_inputs);
  if (din_failed(op)) return;
  int64_t num_tables = a->num_fields + a->num_candidate_fields;
  k->shapes = din_allocate(op, num_tables, sizeof(din_table));
  if (din_failed(op)) return;
  din_reader r = {op, info, k->isa, &k->kept, (size_t)(2 + num_tables)};
  int computed = 0;
  for (int64_t i = 0; i < num_tables; i++) {
    computed |= !is_constant(op, info, r.next + (size_t)i);
  }
  int64_t width = computed ? read_width(&r, r.next + (size_t)num_tables) : 0;
  a->width = read_tables(&r, "table", a->num_fields, width, k->shapes);
  int64_t query_width = read_tables(&r, "candidate_table", a->num_candidate_fields,
                                    width, k->shapes + a->num_fields);
  for (int64_t s = 0; s < a->num_slots; s++) {
    if (k->slots[s] < 0) query_width -= k->slots[s];
  }
  if (!din_failed(op) && (query_width != a->width || a->width > INT32_MAX)) {
    din_fail(op, "expected a query as wide as a behavior, %lld, got %lld - at `%s`",
             (long long)a->width, (long long)query_width, op->name);
  }
  if (din_failed(op)) return;
  a->padded_width = din_round_up(a->width, k->isa->width);
  for (int64_t i = 0; a->softmax && a->padding_row && i < a->num_fields; i++) {
    if (k->shapes[i].num_rows < 1) {
      din_fail(op, "expected a padding row, got no rows - at `%s input table_%lld`",
               op->name, (long long)i);
      return;
    }
  }
  read_weights(&r, k, interactions, num_hidden);
  din_read_end(&r, num_inputs);
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
#define CHUNK_COST 512 /* some 100 microseconds for a usual model */

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

static void read_batch_tables(din_op *op, const OrtKernelContext *context,
                              const kernel *k, size_t first, din_table *tables) {
  const din_attention *a = &k->attention;
  for (int64_t i = 0; i < a->num_fields + a->num_candidate_fields; i++) {
    const OrtValue *value = NULL;
    void *rows = NULL;
    if (din_failed(op)) return;
    tables[i] = k->shapes[i];
    if (k->shapes[i].num_rows == COMPUTED) {
      const char *name = i < a->num_fields ? "table_0" : "candidate_table_0";
      const int64_t dims[2] = {-1, k->shapes[i].dim};
      din_tensor t = din_input(op, context, first + (size_t)i, name);
      din_expect(op, &t, name, ORT_FLOAT, 2, dims);
      tables[i].rows = t.data, tables[i].num_rows = t.dims[0];
      continue;
    }
    din_check(op, op->api->KernelContext_GetInput(context, first + (size_t)i, &value));
    if (din_failed(op)) return;
    din_check(op, op->api->GetTensorMutableData((OrtValue *)(uintptr_t)value, &rows));
    tables[i].rows = rows;
  }
}

/* What a run allocates: freed at its end. */
typedef struct memory {
  const int64_t **ids;
  din_table *tables;
  int64_t *lengths, *kept;
  const float *mask;
} memory;

static void release(memory *m) {
  din_free(m->ids);
  din_free(m->tables);
  din_free(m->lengths);
  din_free(m->kept);
}

/* Turns a mask into lengths: ids that it keeps move to the front of their row. When
   they stand there already, as right padding leaves them, nothing is copied. */
static void apply_mask(din_op *op, const kernel *k, const float *mask,
                       din_attention_batch *b, memory *m) {
  int64_t positions = b->num_positions, moved = 0;
  m->mask = mask;
  m->lengths = din_allocate(op, b->num_requests, sizeof *m->lengths);
  for (int64_t row = 0; row < b->num_requests && !din_failed(op); row++) {
    for (int64_t t = 0; t < positions; t++) {
      float value = mask[row * positions + t];
      if (value == 1.0f) {
        moved |= m->lengths[row]++ != t;
      } else if (value != 0.0f) {
        din_fail(op,
                 "expected a mask of 0 and 1, got %g - at `%s input mask[%lld, %lld]`",
                 (double)value, op->name, (long long)row, (long long)t);
        return;
      }
    }
  }
  b->lengths = m->lengths;
  if (!moved || din_failed(op)) return;
  int64_t fields = k->attention.num_fields, size = b->num_requests * positions;
  m->kept = din_allocate(op, fields * size, sizeof *m->kept);
  for (int64_t f = 0; f < fields && !din_failed(op); f++) {
    int64_t *to = m->kept + f * size;
    for (int64_t row = 0; row < b->num_requests; row++) {
      int64_t count = 0, at = row * positions;
      for (int64_t t = 0; t < positions; t++) {
        if (mask[at + t] == 1.0f) to[at + count++] = m->ids[f][at + t];
      }
    }
    m->ids[f] = to;
  }
}

static void read_batch(din_op *op, const OrtKernelContext *context, const kernel *k,
                       din_attention_batch *b, memory *m) {
  const din_attention *a = &k->attention;
  const int64_t any[2] = {-1, -1};
  int64_t fields = a->num_fields, candidate_fields = a->num_candidate_fields;
  const char *second = k->masks ? "mask" : "lengths";
  din_tensor request = din_input(op, context, 0, "request_of_candidate");
  din_tensor valid = din_input(op, context, 1, second);
  din_tensor first = din_input(op, context, 2, "ids_0");
  din_expect(op, &request, "request_of_candidate", ORT_INT64, 1, any);
  din_expect(op, &first, "ids_0", ORT_INT64, 2, any);
  if (k->masks) {
    din_expect(op, &valid, second, ORT_FLOAT, 2, first.dims);
  } else {
    din_expect(op, &valid, second, ORT_INT64, 1, any);
  }
  b->num_candidates = request.dims[0], b->num_requests = valid.dims[0];
  b->num_positions = first.dims[1];
  b->request_of_candidate = request.data, b->lengths = valid.data;
  const int64_t history[2] = {b->num_requests, b->num_positions};
  read_ids(op, context, "ids", 2, fields, 2, history, m->ids);
  read_ids(op, context, "candidate_ids", 2 + (size_t)fields, candidate_fields, 1,
           &b->num_candidates, m->ids + fields);
  size_t at = 2 + (size_t)(fields + candidate_fields);
  read_batch_tables(op, context, k, at, m->tables);
  if (k->masks && !din_failed(op)) {
    apply_mask(op, k, valid.data, b, m);
  } else {
    din_check_range(op, b->lengths, b->num_requests, b->num_positions + 1, "lengths");
  }
  din_check_range(op, b->request_of_candidate, b->num_candidates, b->num_requests,
                  "request_of_candidate");
  b->ids = m->ids, b->candidate_ids = m->ids + fields;
  b->tables = m->tables, b->candidate_tables = m->tables + fields;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const din_attention *a = &k->attention;
  int64_t num_tables = a->num_fields + a->num_candidate_fields;
  run r = {.k = k};
  din_fault fault;
  memory m = {.ids = din_allocate(op, num_tables, sizeof *m.ids),
              .tables = din_allocate(op, num_tables, sizeof *m.tables)};
  if (!din_failed(op)) read_batch(op, context, k, &r.batch, &m);
  const int64_t interest[2] = {r.batch.num_candidates, a->width};
  const int64_t weight[2] = {r.batch.num_candidates, r.batch.num_positions};
  r.batch.interest = din_output(op, context, 0, "interest", interest, 2);
  if (k->explains) r.batch.weight = din_output(op, context, 1, "weight", weight, 2);
  const din_work work = {.run = attend,
                         .data = &r,
                         .total = r.batch.num_candidates,
                         .cost = cost_of,
                         .chunk_cost = CHUNK_COST,
                         .pool = k->pool};
  if (din_run(op, context, &work, &fault)) {
    char place[MAX_NAME] = "";
    if (!fault.is_candidate && m.kept) { /* where it stood before it moved */
      const float *row = m.mask + fault.row * r.batch.num_positions;
      for (int64_t t = 0, left = fault.position; left >= 0; t++) {
        if (row[t] == 1.0f && left-- == 0) fault.position = t;
      }
    }
    if (!fault.is_candidate) {
      snprintf(place, sizeof place, ", %lld", (long long)fault.position);
    }
    din_fail(op,
             "expected an id in [0, %lld), got %lld - at `%s input %s_%lld[%lld%s]`",
             (long long)fault.num_rows, (long long)fault.id, op->name,
             fault.is_candidate ? "candidate_ids" : "ids", (long long)fault.field,
             (long long)fault.row, place);
  }
  release(&m);
}

const din_kind din_local_activation = {create, compute, destroy};
