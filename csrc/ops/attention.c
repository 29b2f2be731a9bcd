#include "attention.h"

#include <stdio.h>
#include <string.h>

#define MAX_NAME 40

static const char *const OUTPUT_ACTIVATIONS[] = {"none", "relu", "sigmoid", "silu",
                                                 NULL};
static const char *const PADDINGS[] = {"masked", "attended", "mask", NULL};
static const char *const EMPTIES[] = {"zero", "padding_row", NULL};

void din_attention_release(din_attention_op *k) {
  din_release(&k->kept);
  din_free(k->slots);
  din_free(k->shapes);
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
    out[0] = (din_table){NULL, DIN_COMPUTED, width, 0};
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

static void read_slots(din_op *op, const OrtKernelInfo *info, din_attention_op *k,
                       size_t count) {
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

enum { NONE = 1, DIFFERENCE = 2, PRODUCT = 4, OUTER = 8 };
static const char *const INTERACTIONS[] = {"none", "difference", "product", "outer"};

/* The names between commas, as the sum of their numbers. */
static int read_interactions(din_op *op, const OrtKernelInfo *info) {
  char text[64];
  int found = 0, known = 1;
  din_attribute_text(op, info, "interactions", text, sizeof text);
  for (const char *at = text; known && !din_failed(op); at++) {
    size_t length = strcspn(at, ",");
    known = 0;
    for (int i = 0; i < 4; i++) {
      if (strlen(INTERACTIONS[i]) == length && !memcmp(at, INTERACTIONS[i], length)) {
        known = 1 << i;
      }
    }
    found |= known;
    at += length;
    if (*at == '\0') break;
  }
  if (!din_failed(op) && !known) {
    din_fail(op,
             "expected none, difference, product or outer, got %s - at `%s attribute"
             " interactions`",
             text, op->name);
  }
  return found;
}

static void read_weights(din_reader *r, din_attention_op *k, int interactions,
                         int64_t num_hidden) {
  din_attention *a = &k->attention;
  int64_t d = a->width, h = din_read_width(r, "weight_query");
  a->weight_query = din_read_matrix(r, "weight_query", d, h);
  const float *behavior = din_read_matrix(r, "weight_behavior", d, h);
  if (interactions & PRODUCT) {
    a->weight_product = din_read_matrix(r, "weight_product", d, h);
  }
  if (interactions & OUTER) {
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

void din_attention_read(din_op *op, const OrtKernelInfo *info, const din_isa *isa,
                        din_fetch fetch, din_attention_op *k) {
  din_attention *a = &k->attention;
  size_t num_inputs = 0, num_outputs = 0;
  din_check(op, op->api->KernelInfo_GetInputCount(info, &num_inputs));
  din_check(op, op->api->KernelInfo_GetOutputCount(info, &num_outputs));
  din_expect_outputs(op, info, 1, 2);
  k->isa = isa;
  a->num_fields = din_attribute_int(op, info, "num_fields");
  int64_t num_hidden = din_read_depth(op, info, num_inputs) - 1;
  a->mlp.activation =
      (din_activation)din_attribute_choice(op, info, "activation", DIN_ACTIVATIONS);
  a->output_activation = (din_activation)din_attribute_choice(
      op, info, "output_activation", OUTPUT_ACTIVATIONS);
  a->mlp.epsilon = din_attribute_float(op, info, "epsilon");
  a->scale = din_attribute_float(op, info, "scale");
  a->softmax = din_attribute_flag(op, info, "softmax");
  int padding = din_attribute_choice(op, info, "padding", PADDINGS);
  a->attended = padding == 1, k->masks = padding == 2;
  a->padding_row =
      padding == 0 && din_attribute_choice(op, info, "empty_softmax", EMPTIES);
  int interactions = read_interactions(op, info);
  if (din_failed(op)) return;
  if (a->num_fields < 1 || (uint64_t)a->num_fields > num_inputs) {
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
  din_reader r = {op, info, isa, &k->kept, (size_t)(2 + num_tables), fetch};
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
  a->padded_width = din_round_up(a->width, isa->width);
  for (int64_t i = 0; a->softmax && a->padding_row && i < a->num_fields; i++) {
    if (k->shapes[i].num_rows < 1) {
      din_fail(op, "expected a padding row, got no rows - at `%s input table_%lld`",
               op->name, (long long)i);
      return;
    }
  }
  read_weights(&r, k, interactions, num_hidden);
  din_read_end(&r, num_inputs);
}

void din_read_ids(din_op *op, const OrtKernelContext *context, const char *label,
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
