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

   attention.c reads attributes and constants; this file runs it on the CPU.
*/
#include <stdio.h>
#include <string.h>

#include "attention.h"

#define MAX_NAME 40

typedef struct kernel {
  din_attention_op read;
  din_pool *pool;
} kernel;

static void destroy(void *data) {
  kernel *k = data;
  if (k == NULL) return;
  din_attention_release(&k->read);
  din_pool_destroy(k->pool);
  din_free(k);
}

static void *create(din_op *op, const OrtKernelInfo *info, int precision) {
  kernel *k = din_allocate(op, 1, sizeof *k);
  const din_isa *isa = precision == DIN_BF16 ? din_find_half_isa() : din_chosen_isa(op);
  if (k) din_attention_read(op, info, isa, NULL, &k->read);
  if (!din_failed(op)) {
    k->pool =
        din_pool_create(op, din_attention_scratch(&k->read.attention, isa->width));
  }
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
  return r->k->read.isa->attend(&r->k->read.attention, &r->batch, first, last, scratch,
                                fault);
}

/* Behaviors to attend, and what a candidate costs beside them. */
static int64_t cost_of(const void *data, int64_t n) {
  const run *r = data;
  const din_attention_batch *b = &r->batch;
  return din_length_of(&r->k->read.attention, b, n) + 3;
}
#define CHUNK_COST 512 /* some 100 microseconds for a usual model */

static void read_batch_tables(din_op *op, const OrtKernelContext *context,
                              const kernel *k, size_t first, din_table *tables) {
  const din_attention *a = &k->read.attention;
  for (int64_t i = 0; i < a->num_fields + a->num_candidate_fields; i++) {
    if (din_failed(op)) return;
    tables[i] = k->read.shapes[i]; /* a constant is where it was */
    if (k->read.shapes[i].num_rows != DIN_COMPUTED) continue;
    const char *name = i < a->num_fields ? "table_0" : "candidate_table_0";
    const int64_t dims[2] = {-1, k->read.shapes[i].dim};
    din_tensor t = din_input(op, context, first + (size_t)i, name);
    din_expect(op, &t, name, ORT_FLOAT, 2, dims);
    tables[i].rows = t.data, tables[i].num_rows = t.dims[0];
  }
}

/* What a run allocates: freed at its end. */
typedef struct memory {
  const int64_t **ids;
  din_table *tables;
  int64_t *requests, *lengths, *kept;
  const float *mask;
} memory;

static void release(memory *m) {
  din_free(m->ids);
  din_free(m->tables);
  din_free(m->requests);
  din_free(m->lengths);
  din_free(m->kept);
}

/* Turns a mask into lengths: ids that it keeps move to the front of their row. When
   they stand there already, as right padding leaves them, nothing is copied. */
static void apply_mask(din_op *op, const kernel *k, const float *mask,
                       din_attention_batch *b, memory *m) {
  int64_t positions = b->num_positions, moved = 0;
  m->mask = mask;
  b->lengths = NULL;
  if (positions == 0) return; /* a mask of no bytes may be of any number of requests */
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
  int64_t fields = k->read.attention.num_fields, size = b->num_requests * positions;
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
  const din_attention *a = &k->read.attention;
  const int64_t any[2] = {-1, -1};
  int64_t fields = a->num_fields, candidate_fields = a->num_candidate_fields;
  const char *second = k->read.masks ? "mask" : "lengths";
  din_tensor request = din_input(op, context, 0, "request_of_candidate");
  din_tensor valid = din_input(op, context, 1, second);
  din_tensor first = din_input(op, context, 2, "ids_0");
  din_expect(op, &request, "request_of_candidate", ORT_INT64, 1, any);
  din_expect(op, &first, "ids_0", ORT_INT64, 2, any);
  if (k->read.masks) {
    din_expect(op, &valid, second, ORT_FLOAT, 2, first.dims);
  } else {
    din_expect(op, &valid, second, ORT_INT64, 1, any);
  }
  b->num_candidates = request.dims[0], b->num_requests = valid.dims[0];
  b->num_positions = first.dims[1];
  b->request_of_candidate = request.data, b->lengths = valid.data;
  const int64_t history[2] = {b->num_requests, b->num_positions};
  din_read_ids(op, context, "ids", 2, fields, 2, history, m->ids);
  din_read_ids(op, context, "candidate_ids", 2 + (size_t)fields, candidate_fields, 1,
               &b->num_candidates, m->ids + fields);
  size_t at = 2 + (size_t)(fields + candidate_fields);
  read_batch_tables(op, context, k, at, m->tables);
  if (k->read.masks && !din_failed(op)) {
    apply_mask(op, k, valid.data, b, m);
  } else {
    m->lengths = din_copy_range(op, b->lengths, b->num_requests, b->num_positions + 1,
                                "lengths");
    b->lengths = m->lengths;
  }
  m->requests = din_copy_range(op, b->request_of_candidate, b->num_candidates,
                               b->num_requests, "request_of_candidate");
  b->request_of_candidate = m->requests;
  b->ids = m->ids, b->candidate_ids = m->ids + fields;
  b->tables = m->tables, b->candidate_tables = m->tables + fields;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const kernel *k = data;
  const din_attention *a = &k->read.attention;
  int64_t num_tables = a->num_fields + a->num_candidate_fields;
  run r = {.k = k};
  din_fault fault;
  memory m = {.ids = din_allocate(op, num_tables, sizeof *m.ids),
              .tables = din_allocate(op, num_tables, sizeof *m.tables)};
  if (!din_failed(op)) read_batch(op, context, k, &r.batch, &m);
  const int64_t interest[2] = {r.batch.num_candidates, a->width};
  const int64_t weight[2] = {r.batch.num_candidates, r.batch.num_positions};
  r.batch.interest = din_output(op, context, 0, "interest", ORT_FLOAT, interest, 2);
  if (k->read.explains) {
    r.batch.weight = din_output(op, context, 1, "weight", ORT_FLOAT, weight, 2);
  }
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
      int64_t left = fault.position;
      for (int64_t t = 0; t < r.batch.num_positions; t++) {
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
