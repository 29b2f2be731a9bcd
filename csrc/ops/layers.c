#include "layers.h"

#include <stdio.h>

#define MAX_NAME 40

const char *const DIN_ACTIVATIONS[] = {"none",  "relu", "sigmoid",  "silu",
                                       "prelu", "dice", "row_dice", NULL};

float *din_keep(din_reader *r, int64_t count) {
  float *memory = din_allocate(r->op, count, sizeof(float));
  if (memory == NULL) return NULL;
  if (r->kept->count == r->kept->limit) {
    int64_t limit = 2 * r->kept->limit + 16;
    void **list = din_allocate(r->op, limit, sizeof *list);
    if (list == NULL) {
      din_free(memory);
      return NULL;
    }
    for (int64_t i = 0; i < r->kept->count; i++) list[i] = r->kept->memory[i];
    din_free(r->kept->memory);
    r->kept->memory = list, r->kept->limit = limit;
  }
  r->kept->memory[r->kept->count++] = memory;
  return memory;
}

void din_release(din_kept *kept) {
  for (int64_t i = 0; i < kept->count; i++) din_free(kept->memory[i]);
  din_free(kept->memory);
}

const float *din_read_floats(din_reader *r, const char *name, size_t rank, int64_t rows,
                             int64_t columns) {
  const int64_t dims[2] = {rows, columns};
  din_tensor t = din_constant(r->op, r->info, r->next++, name);
  din_expect(r->op, &t, name, ORT_FLOAT, rank, rank == 1 ? &dims[1] : dims);
  if (din_failed(r->op) || r->fetch == NULL) return din_failed(r->op) ? NULL : t.data;
  int64_t count = rank == 1 ? columns : rows * columns;
  float *copy = din_keep(r, count);
  if (copy) r->fetch(r->op, copy, t.data, count);
  return din_failed(r->op) ? NULL : copy;
}

const float *din_read_matrix(din_reader *r, const char *name, int64_t in, int64_t out) {
  const float *src = din_read_floats(r, name, 2, in, out);
  float *packed = src ? din_keep(r, din_round_up(out, r->isa->width) * in) : NULL;
  if (packed) r->isa->pack(src, in, out, packed);
  return packed;
}

/* bf16 again, where the instruction set multiplies so */
static const uint16_t *halve(din_reader *r, const float *packed, int64_t in,
                             int64_t strips) {
  if (packed == NULL || r->isa->pack_half == NULL) return NULL;
  float *memory = din_keep(r, din_half_size(in, strips, r->isa->width) / 2);
  if (memory == NULL) return NULL;
  r->isa->pack_half(packed, NULL, NULL, in, strips, (uint16_t *)(void *)memory);
  return (const uint16_t *)(const void *)memory;
}

/* [units] -> padded with zeros, times `factor`, plus `offset` */
static const float *pad_vector(din_reader *r, const float *src, int64_t units,
                               float factor, float offset) {
  float *padded = src ? din_keep(r, din_round_up(units, r->isa->width)) : NULL;
  for (int64_t i = 0; padded && i < units; i++) padded[i] = src[i] * factor + offset;
  return padded;
}

static const float *read_vector(din_reader *r, const char *label, int64_t number,
                                int64_t units) {
  char name[MAX_NAME];
  snprintf(name, sizeof name, "%s_%lld", label, (long long)number);
  return din_read_floats(r, name, 1, 0, units);
}

static void read_parameters(din_reader *r, din_layer *layer, din_activation activation,
                            int64_t number) {
  const float log2e = 1.44269504088896341f, *src;
  int64_t h = layer->out;
  if (activation == DIN_DICE) {
    src = read_vector(r, "dice_scale", number, h);
    layer->p[0] = pad_vector(r, src, h, -log2e, 0.0f);
    src = read_vector(r, "dice_shift", number, h);
    layer->p[1] = pad_vector(r, src, h, -log2e, 0.0f);
    src = read_vector(r, "dice_alpha", number, h);
    layer->p[2] = pad_vector(r, src, h, 1.0f, 0.0f);
    layer->p[3] = pad_vector(r, src, h, -1.0f, 1.0f);
  } else if (activation == DIN_ROW_DICE) {
    src = read_vector(r, "dice_alpha", number, h);
    layer->p[0] = pad_vector(r, src, h, 1.0f, 0.0f);
    layer->p[1] = pad_vector(r, src, h, -1.0f, 1.0f);
    layer->p[2] = pad_vector(r, src, h, 0.0f, 1.0f);
  } else if (activation == DIN_PRELU) {
    src = read_vector(r, "slope", number, h);
    layer->p[0] = pad_vector(r, src, h, 1.0f, 0.0f);
  }
}

int64_t din_read_width(din_reader *r, const char *name) {
  const int64_t any[2] = {-1, -1};
  din_tensor t = din_constant(r->op, r->info, r->next, name);
  din_expect(r->op, &t, name, ORT_FLOAT, 2, any);
  if (!din_failed(r->op) && t.dims[1] < 1) {
    din_fail(r->op, "expected at least 1 unit, got %lld - at `%s input %s`",
             (long long)t.dims[1], r->op->name, name);
  }
  return din_failed(r->op) ? 0 : t.dims[1];
}

int64_t din_read_depth(din_op *op, const OrtKernelInfo *info, size_t num_inputs) {
  int64_t num_layers = din_attribute_int(op, info, "num_layers");
  if (!din_failed(op) && (num_layers < 1 || (uint64_t)num_layers > num_inputs)) {
    din_fail(op, "expected attributes that fit %zu inputs, got %lld layers - at `%s`",
             num_inputs, (long long)num_layers, op->name);
  }
  return din_failed(op) ? 1 : num_layers;
}

/* The layer to one unit; without hidden layers it is layer 1, and `dot` only copies. */
static void read_dot(din_reader *r, din_mlp *m, int64_t num_hidden) {
  const float one = 1.0f, *src;
  char name[MAX_NAME];
  if (din_failed(r->op)) return;
  int64_t units = m->layers[m->num_layers - 1].out;
  if (num_hidden == 0) {
    if (units != 1) {
      din_fail(r->op, "expected 1 unit in the last layer, got %lld - at `%s`",
               (long long)units, r->op->name);
    }
    m->dot = pad_vector(r, &one, 1, 1.0f, 0.0f);
    return;
  }
  snprintf(name, sizeof name, "weight_%lld", (long long)num_hidden + 1);
  src = din_read_floats(r, name, 2, units, 1);
  m->dot = pad_vector(r, src, units, 1.0f, 0.0f);
  src = read_vector(r, "bias", num_hidden + 1, 1);
  m->dot_bias = src ? src[0] : 0.0f;
}

void din_read_layers(din_reader *r, din_mlp *m, int64_t num_hidden, int64_t in,
                     const float *first, int64_t units) {
  char name[MAX_NAME];
  int64_t width = r->isa->width;
  m->num_layers = num_hidden ? num_hidden : 1;
  if (num_hidden == 0) m->activation = DIN_NONE;
  din_layer *layers = NULL;
  if (!din_failed(r->op)) {
    int64_t floats = (int64_t)(sizeof *layers / sizeof(float) + 1);
    layers = (din_layer *)(void *)din_keep(r, m->num_layers * floats);
  }
  if (layers == NULL) return;
  m->layers = layers;
  for (int64_t l = 0; l < m->num_layers && !din_failed(r->op); l++) {
    din_layer *layer = &layers[l];
    layer->weight = first, layer->in = in, layer->out = units;
    if (l > 0 || first == NULL) {
      snprintf(name, sizeof name, "weight_%lld", (long long)l + 1);
      layer->out = din_read_width(r, name);
      layer->weight = din_read_matrix(r, name, in, layer->out);
    }
    layer->strips = din_round_up(layer->out, width) / width;
    layer->bias = pad_vector(r, read_vector(r, "bias", l + 1, layer->out), layer->out,
                             1.0f, 0.0f);
    read_parameters(r, layer, m->activation, l + 1);
    layer->half_weight = halve(r, layer->weight, in, layer->strips);
    int64_t padded = layer->strips * width;
    if (padded > m->max_padded_units) m->max_padded_units = padded;
    in = layer->out;
  }
  read_dot(r, m, num_hidden);
}

void din_read_end(din_reader *r, size_t num_inputs) {
  if (!din_failed(r->op) && r->next != num_inputs) {
    din_fail(r->op, "expected %zu inputs, got %zu - at `%s`", r->next, num_inputs,
             r->op->name);
  }
}
