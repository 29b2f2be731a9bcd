/* The kernels, for the instruction set that the including file has chosen: the source
   of isa_*.c. The arithmetic is that of local_activation.c's drawing. Long, because one
   operator's way from ids to interest is read best in one place. */
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

/* ---- layers ---- */

/* score [rows] from x [rows, H], the first layer's products: everything behind them.
   x and y are [DIN_TILE, widest layer] and are overwritten. */
static void finish_layers(const din_mlp *m, float *x, float *y, uint16_t *half_x,
                          int64_t rows, float *score) {
  int64_t ld = m->max_padded_units;
  for (int64_t l = 1; l < m->num_layers; l++) {
    const din_layer *layer = &m->layers[l];
    activate(m->activation, layer - 1, m->epsilon, x, ld, rows);
#ifdef DIN_AMX
    to_half(x, ld, rows, layer->in, half_x);
    multiply_half(half_x, rows, layer->half_weight, layer->in, layer->strips,
                  layer->bias, y, ld);
#else
    (void)half_x;
    matrix w = {layer->weight, layer->in, layer->strips, layer->bias, NULL, NULL, NULL};
    multiply(&w, x, ld, rows, y, ld);
#endif
    float *swap = x;
    x = y, y = swap;
  }
  const din_layer *last = &m->layers[m->num_layers - 1];
  activate(m->activation, last, m->epsilon, x, ld, rows);
  for (int64_t i = 0; i < rows; i++) {
    vf sum = v_set(0.0f);
    for (int64_t s = 0; s < last->strips; s++) {
      sum = v_fma(v_load(x + i * ld + s * W), v_load(m->dot + s * W), sum);
    }
    score[i] = v_sum(sum) + m->dot_bias;
  }
}

/* ---- LocalActivation ---- */

/* Behaviors of one candidate that go through the layers with others' in one block. */
typedef struct segment {
  int64_t candidate, start, rows, length; /* rows [start, start + rows) of length */
  const float *behaviors, *query, *first;
} segment;

/* A softmax over scores that arrive in blocks: weights are relative to the highest
   score so far, and what was summed before is scaled down when a higher one comes. */
typedef struct softmax {
  float highest;
  double sum;
} softmax;

/* A thread's memory and what lies in it. */
typedef struct workspace {
  float *query;     /* [DIN_GROUP, padded D] */
  float *first;     /* [DIN_GROUP, S * W]: bias_1 + q . weight_query */
  float *folded;    /* the first weight matrix of a candidate, or a part of it */
  float *behaviors; /* [DIN_OPS_BLOCK, padded D]: of one request after the other */
  float *x[2];      /* [DIN_TILE, widest layer] */
  float *score;     /* [DIN_TILE] */
  double *total;    /* [padded D]: of the candidate whose segments are being added up */
  softmax soft;
#ifdef DIN_AMX
  uint16_t *half_folded; /* as tiles read it */
  uint16_t *half_x;      /* [DIN_TILE + 16, widest input] */
#endif
  int64_t num_behaviors;                /* rows in use */
  int64_t request, start, count, place; /* what was read last, and where it lies */
  int64_t outer_candidate;              /* whose outer products are in `folded` */
  segment segments[DIN_TILE];
  int64_t num_segments, num_rows; /* of the block under construction */
  int64_t next_candidate, last_candidate;
} workspace;

static void arrange(const din_attention *a, float *scratch, workspace *r) {
  int64_t units = a->mlp.layers[0].strips * W, d = a->padded_width;
  memset(r, 0, sizeof *r);
  r->query = scratch, scratch += DIN_GROUP * d;
  r->first = scratch, scratch += DIN_GROUP * units;
  r->folded = scratch, scratch += units * a->width;
  r->behaviors = scratch, scratch += DIN_OPS_BLOCK * d;
  r->x[0] = scratch, scratch += (DIN_TILE + 16) * a->mlp.max_padded_units;
  r->x[1] = scratch, scratch += (DIN_TILE + 16) * a->mlp.max_padded_units;
  r->score = scratch, scratch += din_round_up(DIN_TILE, W);
  r->total = (double *)(void *)scratch, scratch += 2 * d;
#ifdef DIN_AMX
  r->half_folded = (uint16_t *)(void *)scratch, scratch += units * half_width(d) / 2;
  r->half_x = (uint16_t *)(void *)scratch;
#endif
  r->request = r->outer_candidate = -1;
  /* columns behind D stay zero */
  memset(r->query, 0, (size_t)(DIN_GROUP * d) * sizeof(float));
  if (d > a->width)
    memset(r->behaviors, 0, (size_t)(DIN_OPS_BLOCK * d) * sizeof(float));
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
      int64_t id = din_read_once(&b->candidate_ids[field][first + n]);
      if ((uint64_t)id >= (uint64_t)t->num_rows) {
        return set_fault(fault, 1, field, first + n, 0, id, t->num_rows);
      }
      read_row(t, id, query + n * a->padded_width + at);
    }
    at += t->dim;
  }
  return 0;
}

/* Reads behaviors [start, start + count) of a request behind those that are here.
   @pre there is room for them */
static int read_behaviors(const din_attention *a, const din_attention_batch *b,
                          int64_t request, int64_t start, int64_t count, workspace *r,
                          din_fault *fault) {
  int64_t at = 0;
  r->request = -1;
  for (int64_t f = 0; f < a->num_fields; f++) {
    const din_table *t = &b->tables[f];
    const int64_t *ids = b->ids[f] + request * b->num_positions + start;
    float *to = r->behaviors + r->num_behaviors * a->padded_width + at;
    for (int64_t i = 0; i < count && i < 8; i++) prefetch_row(t, ids[i]);
    for (int64_t i = 0; i < count; i++, to += a->padded_width) {
      if (i + 8 < count) prefetch_row(t, ids[i + 8]);
      int64_t id = din_read_once(&ids[i]);
      if ((uint64_t)id >= (uint64_t)t->num_rows) {
        return set_fault(fault, 0, f, request, start + i, id, t->num_rows);
      }
      read_row(t, id, to);
    }
    at += t->dim;
  }
  r->request = request, r->start = start, r->count = count, r->place = r->num_behaviors;
  r->num_behaviors += count;
  return 0;
}

/* Asks the memory for the behaviors of the candidates behind a block, bit by bit. */
typedef struct lookahead {
  int64_t candidate, last, position, left;
} lookahead;

static void look(const din_attention *a, const din_attention_batch *b, int64_t count,
                 lookahead *ahead) {
  while (count > 0 && ahead->left > 0 && ahead->candidate < ahead->last) {
    int64_t n = ahead->candidate, request = b->request_of_candidate[n];
    int same = n > 0 && b->request_of_candidate[n - 1] == request;
    if (same || ahead->position >= din_length_of(a, b, n)) {
      ahead->candidate++, ahead->position = 0;
      continue;
    }
    for (int64_t f = 0; f < a->num_fields; f++) {
      int64_t at = request * b->num_positions + ahead->position;
      prefetch_row(&b->tables[f], b->ids[f][at]);
    }
    ahead->position++, ahead->left--, count--;
  }
}

/* folded = behavior (+ q * product) + sum over i of q_i * outer_i */
static void fold_outer(const din_attention *a, const float *query, float *folded) {
  int64_t strips = a->mlp.layers[0].strips, size = strips * a->width * W, at = 0;
  for (int64_t strip = 0, some; strip < strips; strip += some) {
    some = group_strips(strips - strip);
    for (int64_t i = 0; i < a->width; i++) {
      vf q = v_set(query[i]);
      for (int64_t v = 0; v < some; v++, at += W) {
        vf w = v_load(a->mlp.layers[0].weight + at);
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

/* x [rows of the block, H]: layer 1, each segment with its candidate's own weight.
   Strips are the outer loop, so that the weights that all candidates fold stay near. */
static void first_layer(const din_attention *a, const din_attention_batch *b,
                        workspace *r) {
  const din_layer *layer = &a->mlp.layers[0];
  int64_t ld = a->mlp.max_padded_units, d = a->padded_width;
  int64_t near = r->next_candidate + DIN_GROUP;
  lookahead ahead = {r->next_candidate, near, 0, DIN_TILE};
  if (near > r->last_candidate) ahead.last = r->last_candidate;
  matrix m = {layer->weight,     a->width, layer->strips, NULL,
              a->weight_product, NULL,     r->folded};
  if (a->weight_outer) { /* one segment alone: its weight is made as a whole */
    const segment *s = &r->segments[0];
    if (r->outer_candidate != s->candidate) fold_outer(a, s->query, r->folded);
    r->outer_candidate = s->candidate;
    m.weight = r->folded, m.product = NULL;
  }
#ifdef DIN_AMX
  float *x = r->x[0];
  for (int64_t i = 0; i < r->num_segments; x += r->segments[i].rows * ld, i++) {
    const segment *s = &r->segments[i];
    const uint16_t *weight = layer->half_weight;
    look(a, b, 16, &ahead);
    if (a->weight_outer || a->weight_product) {
      weight = r->half_folded;
      pack_half(m.weight, m.product, s->query, a->width, m.strips, r->half_folded);
    }
    to_half(s->behaviors, d, s->rows, a->width, r->half_x);
    multiply_half(r->half_x, s->rows, weight, a->width, m.strips, s->first, x, ld);
  }
#else
  for (int64_t strip = 0, some; strip < m.strips; strip += some) {
    float *x = r->x[0];
    some = group_strips(m.strips - strip);
    look(a, b, 16, &ahead);
    for (int64_t i = 0; i < r->num_segments; x += r->segments[i].rows * ld, i++) {
      const segment *s = &r->segments[i];
      m.init = s->first, m.query = s->query;
      multiply_group(&m, s->behaviors, d, s->rows, strip, some, x, ld);
    }
  }
#endif
}

/* score [rows of the block]: all layers. */
static void score_block(const din_attention *a, const din_attention_batch *b,
                        workspace *r) {
  uint16_t *half_x = NULL;
#ifdef DIN_AMX
  half_x = r->half_x;
#endif
  first_layer(a, b, r);
  finish_layers(&a->mlp, r->x[0], r->x[1], half_x, r->num_rows, r->score);
  activate_scores(a->output_activation, r->score, r->num_rows);
  for (int64_t i = 0; a->scale != 1.0f && i < r->num_rows; i++) r->score[i] *= a->scale;
}

static void exponentiate(float *score, int64_t rows, float highest) {
  for (int64_t i = 0; i < rows; i += W) { /* the score array is a multiple of W long */
    vf x = v_load(score + i);
    x = v_if_finite(x, (x - v_set(highest)) * v_set(LOG2E));
    v_exp2(1, &x);
    v_store(score + i, x);
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

/* Adds a scored segment to its candidate's interest; writes that when it is the last.
 */
static void add_segment(const din_attention *a, const din_attention_batch *b,
                        const segment *s, float *score, workspace *r) {
  int64_t d = a->padded_width;
  float *weight = b->weight ? b->weight + s->candidate * b->num_positions : NULL;
  float *interest = b->interest + s->candidate * a->width;
  if (s->start == 0) {
    memset(r->total, 0, (size_t)d * sizeof(double));
    r->soft = (softmax){-INFINITY, 0.0};
  }
  if (weight) memcpy(weight + s->start, score, (size_t)s->rows * sizeof(float));
  if (a->softmax) soften(&r->soft, score, s->rows, r->total, d);
  accumulate(s->behaviors, d, s->rows, score, r->total);
  if (s->start + s->rows < s->length) return;
  if (weight && a->softmax) finish_weights(&r->soft, weight, s->length);
  double factor = a->softmax ? 1.0 / r->soft.sum : 1.0;
  for (int64_t i = 0; i < a->width; i++) interest[i] = (float)(r->total[i] * factor);
}

static void finish_block(const din_attention *a, const din_attention_batch *b,
                         workspace *r) {
  if (r->num_segments == 0) return;
  score_block(a, b, r);
  /* softmax works on whole vectors of scores: each segment's at the front of a copy */
  float score[DIN_TILE + W], *from = r->score;
  for (int64_t i = 0; i < r->num_segments; from += r->segments[i].rows, i++) {
    memcpy(score, from, (size_t)r->segments[i].rows * sizeof *score);
    add_segment(a, b, &r->segments[i], score, r);
  }
  r->num_segments = r->num_rows = 0;
}

static int write_empty(const din_attention *a, const din_attention_batch *b,
                       int64_t candidate, din_fault *fault) {
  float *interest = b->interest + candidate * a->width;
  memset(interest, 0, (size_t)a->width * sizeof *interest);
  if (!a->softmax || !a->padding_row) return 0;
  for (int64_t f = 0, at = 0; f < a->num_fields; at += b->tables[f].dim, f++) {
    if (b->tables[f].num_rows == 0) return set_fault(fault, 0, f, candidate, 0, 0, 0);
    read_row(&b->tables[f], 0, interest + at);
  }
  return 0;
}

/* Puts a candidate's behaviors into blocks; full blocks are finished on the way. A
   history that fits in a block is not cut. */
static int add_candidate(const din_attention *a, const din_attention_batch *b,
                         int64_t candidate, const float *query, const float *first,
                         workspace *r, din_fault *fault) {
  int64_t request = b->request_of_candidate[candidate], d = a->padded_width;
  int64_t length = din_length_of(a, b, candidate), positions = b->num_positions;
  if (b->weight && length < positions) {
    memset(b->weight + candidate * positions + length, 0,
           (size_t)(positions - length) * sizeof(float));
  }
  if (length == 0) return write_empty(a, b, candidate, fault);
  for (int64_t start = 0; start < length; start += DIN_OPS_BLOCK) {
    int64_t count = length - start < DIN_OPS_BLOCK ? length - start : DIN_OPS_BLOCK;
    int here = r->request == request && r->start == start && r->count == count;
    if (!here && r->num_behaviors + count > DIN_OPS_BLOCK) {
      finish_block(a, b, r);
      r->num_behaviors = 0, r->request = -1;
    }
    if (!here && read_behaviors(a, b, request, start, count, r, fault)) return 1;
    const float *behaviors = r->behaviors + r->place * d;
    int64_t pieces = (count + DIN_TILE - 1) / DIN_TILE, row = 0;
    for (int64_t p = 0; p < pieces; p++) {
      int64_t next = count * (p + 1) / pieces, rows = next - row;
      if (r->num_rows + rows > DIN_TILE || a->weight_outer) finish_block(a, b, r);
      r->segments[r->num_segments++] = (segment){
          candidate, start + row, rows, length, behaviors + row * d, query, first};
      r->num_rows += rows;
      row = next;
    }
  }
  return 0;
}

static int attend(const din_attention *a, const din_attention_batch *b, int64_t first,
                  int64_t last, float *scratch, din_fault *fault) {
  workspace r;
  int64_t units = a->mlp.layers[0].strips * W;
  matrix query_part = {a->weight_query,
                       a->width,
                       a->mlp.layers[0].strips,
                       a->mlp.layers[0].bias,
                       NULL,
                       NULL,
                       NULL};
  int failed = 0;
  arrange(a, scratch, &r);
  r.last_candidate = last;
  TILE_START();
  for (int64_t group = first; group < last && !failed; group += DIN_GROUP) {
    int64_t count = last - group < DIN_GROUP ? last - group : DIN_GROUP;
    failed = read_queries(a, b, group, count, r.query, fault);
    if (failed) break;
    multiply(&query_part, r.query, a->padded_width, count, r.first, units);
    for (int64_t i = 0; i < count && !failed; i++) {
      r.next_candidate = group + i;
      failed = add_candidate(a, b, group + i, r.query + i * a->padded_width,
                             r.first + i * units, &r, fault);
    }
    r.next_candidate = group + count;
    if (!failed)
      finish_block(a, b, &r); /* the queries make room for the next group's */
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
      int64_t id = din_read_once(&ids[i]);
      if ((uint64_t)id >= (uint64_t)t->num_rows) {
        return set_fault(fault, 0, 0, n, i, id, t->num_rows);
      }
      read_row(t, id, row);
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

/* ---- Tower ---- */

#ifndef DIN_AMX
static void tower(const din_tower *t, const din_tower_batch *b, int64_t first,
                  int64_t last, float *scratch) {
  const din_layer *layer = &t->mlp.layers[0];
  int64_t ld = t->mlp.max_padded_units;
  float *in = scratch, *x = in + din_round_up(DIN_TILE * t->width, W);
  float *y = x + (DIN_TILE + 16) * ld, *score = y + (DIN_TILE + 16) * ld;
  matrix m = {layer->weight, layer->in, layer->strips, layer->bias, NULL, NULL, NULL};
  for (int64_t row = first; row < last; row += DIN_TILE) {
    int64_t rows = last - row < DIN_TILE ? last - row : DIN_TILE, at = 0;
    for (int64_t i = 0; i < t->num_blocks; at += t->widths[i], i++) {
      const din_table block = {b->x[i], last, t->widths[i], 0};
      for (int64_t r = 0; r < rows; r++) {
        read_row(&block, row + r, in + r * t->width + at);
      }
    }
    multiply(&m, in, t->width, rows, x, ld);
    finish_layers(&t->mlp, x, y, NULL, rows, score);
    memcpy(b->logit + row, score, (size_t)rows * sizeof *score);
  }
}
#endif

#ifdef DIN_AMX
const din_isa ISA_SYMBOL = {ISA_NAME, W, pack, pack_half, attend, bag, NULL};
#else
const din_isa ISA_SYMBOL = {ISA_NAME, W, pack, NULL, attend, bag, tower};
#endif
