/* The kernels, for the instruction set that the including file has chosen: the source
   of isa_*.c. The arithmetic is that of local_activation.c's drawing. */
#include <math.h>

#include "activate.h"
#include "gemm.h"
#include "isa.h"
#include "vec.h"

#ifdef DIN_AMX
#include "amx.h"
#else
#define TILE_START()
#define TILE_END()
#endif

/* ---- reading tables ---- */

DIN_INLINE void prefetch_row(const din_table *t, int64_t id) {
  if ((uint64_t)id >= (uint64_t)t->num_rows) return;
  int64_t bytes = t->dim * (t->is_half ? 2 : 4);
  const char *row = (const char *)t->rows + id * bytes;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
  __builtin_prefetch(row + bytes - 1);
}

/* dst [dim] = row `id` as float; @pre id in [0, num_rows) */
DIN_INLINE void read_row(const din_table *t, int64_t id, float *dst) {
  int64_t dim = t->dim, i = 0;
  if (t->is_half) {
    const uint16_t *src = (const uint16_t *)t->rows + id * dim;
    for (; i + W <= dim; i += W) v_store(dst + i, v_load_half(src + i));
    for (; i < dim; i++) dst[i] = half_to_float(src[i]);
  } else {
    const float *src = (const float *)t->rows + id * dim;
    for (; i + W <= dim; i += W) v_store(dst + i, v_load(src + i));
    for (; i < dim; i++) dst[i] = src[i];
  }
}

static int set_fault(din_fault *fault, int is_candidate, int64_t field, int64_t row,
                     int64_t position, int64_t id, int64_t num_rows) {
  *fault = (din_fault){is_candidate, field, row, position, id, num_rows};
  return 1;
}

/* total [padded D] += sum over rows of weight * vectors. Sums of DIN_TILE vectors at
   most are added in double, so that the error does not grow with the history. */
static void accumulate(const float *vectors, int64_t ld, int64_t rows,
                       const float *weight, double *total) {
  int64_t d = 0;
  float sums[4 * W];
  for (; d < ld; d += 4 * W) {
    int64_t some = (ld - d) / W < 4 ? (ld - d) / W : 4;
    vf acc[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)};
    if (some == 4) {
      for (int64_t r = 0; r < rows; r++) {
        vf w = v_set(weight[r]);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
          acc[v] = v_fma(w, v_load(vectors + r * ld + d + v * W), acc[v]);
        }
      }
    } else {
      for (int64_t r = 0; r < rows; r++) {
        vf w = v_set(weight[r]);
        for (int64_t v = 0; v < some; v++) {
          acc[v] = v_fma(w, v_load(vectors + r * ld + d + v * W), acc[v]);
        }
      }
    }
    for (int v = 0; v < 4; v++) v_store(sums + v * W, acc[v]);
    for (int64_t i = 0; i < some * W; i++) total[d + i] += (double)sums[i];
  }
}

/* ---- LocalActivation ---- */

/* A thread's memory, and which behaviors of which request lie in it. */
typedef struct room {
  float *query;     /* [DIN_GROUP, padded D] */
  float *first;     /* [DIN_GROUP, S * W]: bias_1 + q . weight_query */
  float *folded;    /* packed: the candidate's first weight matrix */
  float *behaviors; /* [DIN_BLOCK, padded D] */
  float *x[2];      /* [DIN_TILE, widest layer] */
  float *score;     /* [DIN_TILE] */
  double *total;    /* [padded D] */
#ifdef DIN_AMX
  uint16_t *half_folded;    /* as tiles read it */
  uint16_t *half_behaviors; /* [DIN_TILE, D padded to 32] */
  uint16_t *half_x;         /* [DIN_TILE, units padded to 32] */
#endif
  int64_t request, start, count;
} room;

static room arrange(const din_attention *a, float *scratch) {
  room r;
  int64_t units = a->layers[0].strips * W, d = a->padded_width;
  r.query = scratch, scratch += DIN_GROUP * d;
  r.first = scratch, scratch += DIN_GROUP * units;
  r.folded = scratch, scratch += units * a->width;
  r.behaviors = scratch, scratch += DIN_BLOCK * d;
  r.x[0] = scratch, scratch += DIN_TILE * a->max_padded_units;
  r.x[1] = scratch, scratch += DIN_TILE * a->max_padded_units;
  r.score = scratch, scratch += din_round_up(DIN_TILE, W);
  r.total = (double *)(void *)scratch, scratch += 2 * d;
#ifdef DIN_AMX
  r.half_folded = (uint16_t *)(void *)scratch, scratch += units * half_width(d) / 2;
  r.half_behaviors = (uint16_t *)(void *)scratch,
  scratch += DIN_TILE * half_width(d) / 2;
  r.half_x = (uint16_t *)(void *)scratch;
#endif
  r.request = -1, r.start = 0, r.count = 0;
  /* columns behind D stay zero */
  memset(r.query, 0, (size_t)(DIN_GROUP * d) * sizeof(float));
  memset(r.behaviors, 0, (size_t)(DIN_BLOCK * d) * sizeof(float));
  return r;
}

static int read_queries(const din_attention *a, const din_attention_batch *b,
                        int64_t first, int64_t count, float *query, din_fault *fault) {
  for (int64_t f = 0; f < a->num_candidate_fields; f++) {
    for (int64_t n = 0; n < count; n++) {
      prefetch_row(&b->candidate_tables[f], b->candidate_ids[f][first + n]);
    }
  }
  int64_t at = 0;
  for (int64_t s = 0; s < a->num_slots; s++) {
    int64_t field = a->slots[s];
    if (field < 0) {
      at -= field;
      continue;
    }
    const din_table *t = &b->candidate_tables[field];
    for (int64_t n = 0; n < count; n++) {
      int64_t id = b->candidate_ids[field][first + n];
      if ((uint64_t)id >= (uint64_t)t->num_rows) {
        return set_fault(fault, 1, field, first + n, 0, id, t->num_rows);
      }
      read_row(t, id, query + n * a->padded_width + at);
    }
    at += t->dim;
  }
  return 0;
}

/* Reads behaviors [start, start + count) of a request, unless they are here already. */
static int read_behaviors(const din_attention *a, const din_attention_batch *b,
                          int64_t request, int64_t start, int64_t count, room *r,
                          din_fault *fault) {
  if (r->request == request && r->start == start && r->count == count) return 0;
  r->request = -1;
  int64_t at = 0;
  for (int64_t f = 0; f < a->num_fields; f++) {
    const din_table *t = &b->tables[f];
    const int64_t *ids = b->ids[f] + request * b->num_positions + start;
    for (int64_t i = 0; i < count && i < 8; i++) prefetch_row(t, ids[i]);
    for (int64_t i = 0; i < count; i++) {
      if (i + 8 < count) prefetch_row(t, ids[i + 8]);
      if ((uint64_t)ids[i] >= (uint64_t)t->num_rows) {
        return set_fault(fault, 0, f, request, start + i, ids[i], t->num_rows);
      }
      read_row(t, ids[i], r->behaviors + i * a->padded_width + at);
    }
    at += t->dim;
  }
  r->request = request, r->start = start, r->count = count;
  return 0;
}

/* Asks the memory for a request's first behaviors, a few at a call. */
typedef struct lookahead {
  int64_t request, next, count;
} lookahead;

DIN_INLINE void look(const din_attention *a, const din_attention_batch *b,
                     lookahead *ahead) {
  for (int i = 0; i < 8 && ahead->next < ahead->count; i++, ahead->next++) {
    for (int64_t f = 0; f < a->num_fields; f++) {
      int64_t at = ahead->request * b->num_positions + ahead->next;
      prefetch_row(&b->tables[f], b->ids[f][at]);
    }
  }
}

/* folded = behavior (+ q * product) + sum over i of q_i * outer_i */
static void fold_outer(const din_attention *a, const float *query, float *folded) {
  int64_t strips = a->layers[0].strips, size = strips * a->width * W, at = 0;
  for (int64_t strip = 0, some; strip < strips; strip += some) {
    some = group_strips(strips - strip);
    for (int64_t i = 0; i < a->width; i++) {
      vf q = v_set(query[i]);
      for (int64_t v = 0; v < some; v++, at += W) {
        vf w = v_load(a->layers[0].weight + at);
        if (a->weight_product) w = v_fma(q, v_load(a->weight_product + at), w);
        v_store(folded + at, w);
      }
    }
  }
  for (int64_t i = 0; i < a->width; i++) {
    const float *outer = a->weight_outer + i * size;
    vf q = v_set(query[i]);
    for (at = 0; at < size; at += W) {
      v_store(folded + at, v_fma(q, v_load(outer + at), v_load(folded + at)));
    }
  }
}

/* x [rows, H] -> score [rows]: the last activation and the layer to one unit. */
static void finish_scores(const din_attention *a, float *x, int64_t rows,
                          float *score) {
  const din_layer *last = &a->layers[a->num_layers - 1];
  int64_t ld = a->max_padded_units;
  activate(a->activation, last, a->epsilon, x, ld, rows);
  for (int64_t i = 0; i < rows; i++) {
    vf sum = v_set(0.0f);
    for (int64_t s = 0; s < last->strips; s++) {
      sum = v_fma(v_load(x + i * ld + s * W), v_load(a->dot + s * W), sum);
    }
    score[i] = v_sum(sum) + a->dot_bias;
  }
  if (a->output_activation != DIN_NONE) {
    for (int64_t i = 0; i < rows; i++) {
      score[i] = activate_scalar(a->output_activation, score[i]);
    }
  }
  if (a->scale != 1.0f) {
    for (int64_t i = 0; i < rows; i++) score[i] *= a->scale;
  }
}

/* score [rows] of behaviors k [rows, padded D]: all layers, a tile at a time. */
static void score_tile(const din_attention *a, const matrix *layer_1, const float *k,
                       int64_t rows, int fold, room *r) {
  int64_t ld = a->max_padded_units;
  float *x = r->x[0], *y = r->x[1];
#ifdef DIN_AMX
  const uint16_t *weight = a->layers[0].half_weight;
  if (fold || layer_1->product || layer_1->weight != a->layers[0].weight) {
    weight = r->half_folded;
  }
  to_half(k, a->padded_width, rows, a->width, r->half_behaviors);
  multiply_half(r->half_behaviors, rows, weight, a->width, layer_1->strips,
                layer_1->init, x, ld);
#else
  multiply(layer_1, k, a->padded_width, rows, fold, x, ld);
#endif
  for (int64_t l = 1; l < a->num_layers; l++) {
    const din_layer *layer = &a->layers[l];
    activate(a->activation, layer - 1, a->epsilon, x, ld, rows);
#ifdef DIN_AMX
    to_half(x, ld, rows, layer->in, r->half_x);
    multiply_half(r->half_x, rows, layer->half_weight, layer->in, layer->strips,
                  layer->bias, y, ld);
#else
    matrix m = {layer->weight, layer->in, layer->strips, layer->bias, NULL, NULL, NULL};
    multiply(&m, x, ld, rows, 0, y, ld);
#endif
    float *swap = x;
    x = y, y = swap;
  }
  finish_scores(a, x, rows, r->score);
}

/* A softmax over scores that arrive in tiles: weights are relative to the highest score
   so far, and what was summed before is scaled down when a higher one comes. */
typedef struct softmax {
  float highest;
  double sum;
} softmax;

static void exponentiate(float *score, int64_t rows, float highest) {
  for (int64_t i = 0; i < rows; i += W) { /* the score array is a multiple of W long */
    vf x = (v_load(score + i) - v_set(highest)) * v_set(LOG2E);
    v_store(score + i, v_exp2(x));
  }
}

static void soften(softmax *soft, float *score, int64_t rows, double *total,
                   int64_t width) {
  float highest = soft->highest;
  for (int64_t i = 0; i < rows; i++) highest = score[i] > highest ? score[i] : highest;
  if (highest > soft->highest) {
    double down = exp((double)soft->highest - (double)highest);
    soft->sum *= down;
    for (int64_t d = 0; d < width; d++) total[d] *= down;
    soft->highest = highest;
  }
  exponentiate(score, rows, highest);
  for (int64_t i = 0; i < rows; i++) soft->sum += (double)score[i];
}

/* weight [count] from scores to softmax weights */
static void finish_weights(const softmax *soft, float *weight, int64_t count) {
  float buffer[W];
  float factor = (float)(1.0 / soft->sum);
  for (int64_t i = 0; i < count; i += W) {
    int64_t some = count - i < W ? count - i : W;
    memset(buffer, 0, sizeof buffer);
    memcpy(buffer, weight + i, (size_t)some * sizeof(float));
    exponentiate(buffer, some, soft->highest);
    v_store(buffer, v_load(buffer) * v_set(factor));
    memcpy(weight + i, buffer, (size_t)some * sizeof(float));
  }
}

/* The interest of one candidate (and its weights), from its query and first bias. */
static int attend_one(const din_attention *a, const din_attention_batch *b, int64_t n,
                      const float *query, const float *first, lookahead *ahead, room *r,
                      din_fault *fault) {
  int64_t request = b->request_of_candidate[n], d = a->padded_width;
  int64_t length = a->attended ? b->num_positions : b->lengths[request];
  float *weight = b->weight ? b->weight + n * b->num_positions : NULL;
  float *interest = b->interest + n * a->width;
  softmax soft = {-INFINITY, 0.0};
  matrix layer_1 = {
      a->layers[0].weight, a->width, a->layers[0].strips, first, NULL, NULL, NULL};
  int fold = 0;
  memset(r->total, 0, (size_t)d * sizeof(double));
  if (a->weight_outer != NULL && length > 0) {
    fold_outer(a, query, r->folded);
    layer_1.weight = r->folded;
  } else if (a->weight_product != NULL) {
    layer_1.product = a->weight_product, layer_1.query = query;
    layer_1.folded = r->folded;
    fold = 1;
  }
#ifdef DIN_AMX
  if (a->weight_outer || a->weight_product) {
    pack_half(layer_1.weight, layer_1.product, query, a->width, layer_1.strips,
              r->half_folded);
  }
#endif
  for (int64_t start = 0; start < length; start += DIN_BLOCK) {
    int64_t count = length - start < DIN_BLOCK ? length - start : DIN_BLOCK;
    if (read_behaviors(a, b, request, start, count, r, fault)) return 1;
    int64_t tiles = (count + DIN_TILE - 1) / DIN_TILE, row = 0;
    for (int64_t t = 0; t < tiles; t++) {
      int64_t next = count * (t + 1) / tiles, rows = next - row;
      const float *k = r->behaviors + row * d;
      look(a, b, ahead);
      score_tile(a, &layer_1, k, rows, fold, r);
      fold = 0;
      if (weight) {
        memcpy(weight + start + row, r->score, (size_t)rows * sizeof(float));
      }
      if (a->softmax) soften(&soft, r->score, rows, r->total, d);
      accumulate(k, d, rows, r->score, r->total);
      row = next;
    }
  }
  if (weight) {
    if (a->softmax) finish_weights(&soft, weight, length);
    for (int64_t t = length; t < b->num_positions; t++) weight[t] = 0.0f;
  }
  double factor = a->softmax && length > 0 ? 1.0 / soft.sum : 1.0;
  for (int64_t i = 0; i < a->width; i++) interest[i] = (float)(r->total[i] * factor);
  if (length == 0 && a->softmax && a->padding_row) {
    for (int64_t f = 0, at = 0; f < a->num_fields; at += b->tables[f].dim, f++) {
      if (b->tables[f].num_rows == 0) return set_fault(fault, 0, f, request, 0, 0, 0);
      read_row(&b->tables[f], 0, interest + at);
    }
  }
  return 0;
}

static int attend(const din_attention *a, const din_attention_batch *b, int64_t first,
                  int64_t last, float *scratch, din_fault *fault) {
  room r = arrange(a, scratch);
  int64_t units = a->layers[0].strips * W;
  matrix query_part = {a->weight_query,
                       a->width,
                       a->layers[0].strips,
                       a->layers[0].bias,
                       NULL,
                       NULL,
                       NULL};
  int failed = 0;
  TILE_START();
  for (int64_t group = first; group < last && !failed; group += DIN_GROUP) {
    int64_t count = last - group < DIN_GROUP ? last - group : DIN_GROUP;
    failed = read_queries(a, b, group, count, r.query, fault);
    if (failed) break;
    multiply(&query_part, r.query, a->padded_width, count, 0, r.first, units);
    for (int64_t i = 0; i < count && !failed; i++) {
      lookahead ahead = {0, 0, 0};
      int64_t n = group + i;
      if (n + 1 < last &&
          b->request_of_candidate[n + 1] != b->request_of_candidate[n]) {
        ahead.request = b->request_of_candidate[n + 1];
        ahead.count = a->attended ? b->num_positions : b->lengths[ahead.request];
        if (ahead.count > DIN_BLOCK) ahead.count = DIN_BLOCK;
      }
      failed = attend_one(a, b, n, r.query + i * a->padded_width, r.first + i * units,
                          &ahead, &r, fault);
    }
  }
  TILE_END();
  return failed;
}

/* ---- EmbeddingBag ---- */

static int bag(const din_bag_batch *b, int64_t first, int64_t last, float *scratch,
               din_fault *fault) {
  const din_table *t = &b->table;
  int64_t dim = t->dim, padded = din_round_up(dim, W);
  float *row = scratch;
  double *total = (double *)(void *)(scratch + padded);
  memset(row, 0, (size_t)padded * sizeof *row);
  for (int64_t n = first; n < last; n++) {
    const int64_t *ids = b->ids + n * b->num_positions;
    int64_t count = b->attended ? b->num_positions : b->lengths[n];
    float *out = b->pooled + n * dim;
    if (count == 0) {
      for (int64_t d = 0; d < dim; d++) out[d] = b->empty;
      continue;
    }
    for (int64_t i = 0; i < count && i < 8; i++) prefetch_row(t, ids[i]);
    memset(total, 0, (size_t)padded * sizeof *total);
    for (int64_t i = 0; i < count; i++) {
      if (i + 8 < count) prefetch_row(t, ids[i + 8]);
      if ((uint64_t)ids[i] >= (uint64_t)t->num_rows) {
        return set_fault(fault, 0, 0, n, i, ids[i], t->num_rows);
      }
      read_row(t, ids[i], row);
      if (b->pooling == DIN_MAX) {
        for (int64_t d = 0; d < dim; d++) {
          total[d] = i == 0 || (double)row[d] > total[d] ? (double)row[d] : total[d];
        }
      } else {
        for (int64_t d = 0; d < padded; d++) total[d] += (double)row[d];
      }
    }
    double factor = b->pooling == DIN_MEAN ? 1.0 / (double)count : 1.0;
    for (int64_t d = 0; d < dim; d++) out[d] = (float)(total[d] * factor);
  }
  return 0;
}

/* ---- Dice ---- */

static void dice(const din_layer *layer, const float *x, float *y, int64_t rows) {
  int64_t whole = layer->out / W, rest = layer->out % W;
  for (int64_t s = 0; s < whole + (rest > 0); s++) {
    vf p[4];
    load_parameters(DIN_DICE, layer, s, p);
    for (int64_t r = 0; r < rows; r++) {
      const float *from = x + r * layer->out + s * W;
      float *to = y + r * layer->out + s * W;
      if (s < whole) {
        v_store(to, activate_one(DIN_DICE, v_load(from), p));
      } else {
        float buffer[W] = {0};
        memcpy(buffer, from, (size_t)rest * sizeof(float));
        v_store(buffer, activate_one(DIN_DICE, v_load(buffer), p));
        memcpy(to, buffer, (size_t)rest * sizeof(float));
      }
    }
  }
}

#ifdef DIN_AMX
const din_isa ISA_SYMBOL = {ISA_NAME, W, pack, pack_half, attend, bag, dice};
#else
const din_isa ISA_SYMBOL = {ISA_NAME, W, pack, NULL, attend, bag, dice};
#endif
