/* Activations over packed layers. Part of kernels.h. */
#ifndef DIN_OPS_ACTIVATE_H_
#define DIN_OPS_ACTIVATE_H_

#include <math.h>

#include "isa.h"
#include "vec.h"

/* n vectors of x, whose parameters are p[i] each or, with `shared`, p[0] all. */
DIN_INLINE void activate_lanes(const din_activation kind, const int n, const int shared,
                               const float *const *x, vf *y, vf (*p)[4]) {
#define P(i, k) p[shared ? 0 : (i)][k]
  switch (kind) {
    case DIN_RELU:
      EACH_LANE {
        vf value = v_load(x[i]);
        y[i] = v_if_finite(value, v_max(v_set(0.0f), value));
      }
      break;
    case DIN_SIGMOID:
    case DIN_SILU:
      EACH_LANE {
        vf value = v_load(x[i]), scaled = value * v_set(-LOG2E);
        y[i] = kind == DIN_SILU ? scaled : v_if_finite(value, scaled);
      }
      v_sigmoid(n, y);
      if (kind == DIN_SILU) {
        EACH_LANE y[i] = y[i] * v_load(x[i]);
      }
      break;
    case DIN_PRELU: /* max(x, 0) + slope * min(x, 0) */
      EACH_LANE {
        vf value = v_load(x[i]), zero = v_set(0.0f);
        y[i] = v_fma(P(i, 0), v_min(zero, value), v_max(zero, value));
      }
      break;
    case DIN_DICE: /* x * (alpha + (1 - alpha) * sigmoid(scale * x + shift)) */
      EACH_LANE y[i] = v_fma(v_load(x[i]), P(i, 0), P(i, 1));
      v_sigmoid(n, y);
      EACH_LANE y[i] = v_fma(P(i, 3), y[i], P(i, 2));
      EACH_LANE y[i] = y[i] * v_load(x[i]);
      break;
    default:
      EACH_LANE y[i] = v_load(x[i]);
  }
#undef P
}

DIN_INLINE void load_parameters(const din_activation kind, const din_layer *layer,
                                int64_t strip, vf p[4]) {
  int count = kind == DIN_DICE ? 4 : kind == DIN_PRELU ? 1 : 0;
  for (int i = 0; i < 4; i++) {
    p[i] = i < count ? v_load(layer->p[i] + strip * W) : v_set(0.0f);
  }
}

/* One strip of units, in `rows` rows ld floats apart. */
DIN_INLINE void activate_strip(const din_activation kind, const din_layer *layer,
                               int64_t strip, const float *x, float *y, int64_t ld,
                               int64_t rows) {
  vf p[1][4], out[LANES];
  int64_t r = 0;
  load_parameters(kind, layer, strip, p[0]);
  for (; r + LANES <= rows; r += LANES) {
    const float *from[LANES] = {x + r * ld, x + (r + 1) * ld, x + (r + 2) * ld,
                                x + (r + 3) * ld};
    activate_lanes(kind, LANES, 1, from, out, p);
    for (int i = 0; i < LANES; i++) v_store(y + (r + i) * ld, out[i]);
  }
  for (; r < rows; r++) {
    const float *from = x + r * ld;
    activate_lanes(kind, 1, 1, &from, out, p);
    v_store(y + r * ld, out[0]);
  }
}

DIN_INLINE void activate_rows(const din_activation kind, const din_layer *layer,
                              float *x, int64_t ld, int64_t rows) {
  for (int64_t s = 0; s < layer->strips; s++) {
    activate_strip(kind, layer, s, x + s * W, x + s * W, ld, rows);
  }
}

/* p = sigmoid((x - mu) / sqrt(sum over units of ((x - mu)^2 + epsilon))) of each row */
static void activate_row_dice(const din_layer *layer, float epsilon, float *x,
                              int64_t ld, int64_t rows) {
  const float units = (float)layer->out;
  for (int64_t r = 0; r < rows; r++, x += ld) {
    vf sum = v_set(0.0f), squares = v_set(0.0f);
    for (int64_t s = 0; s < layer->strips; s++) sum += v_load(x + s * W);
    vf mean = v_set(v_sum(sum) / units);
    for (int64_t s = 0; s < layer->strips; s++) {
      vf centered = (v_load(x + s * W) - mean) * v_load(layer->p[2] + s * W);
      squares = v_fma(centered, centered, squares);
    }
    float total = v_sum(squares) + units * epsilon;
    /* where the squares overflowed, NaN */
    vf scale = v_set(-LOG2E / sqrtf(total) + total * 0.0f);
    for (int64_t s = 0; s < layer->strips; s++) {
      vf value = v_load(x + s * W), alpha = v_load(layer->p[0] + s * W);
      vf p = (value - mean) * scale;
      v_sigmoid(1, &p);
      v_store(x + s * W, value * v_fma(v_load(layer->p[1] + s * W), p, alpha));
    }
  }
}

static void activate(din_activation kind, const din_layer *layer, float epsilon,
                     float *x, int64_t ld, int64_t rows) {
  switch (kind) {
    case DIN_NONE:
      break;
    case DIN_RELU:
      activate_rows(DIN_RELU, layer, x, ld, rows);
      break;
    case DIN_SIGMOID:
      activate_rows(DIN_SIGMOID, layer, x, ld, rows);
      break;
    case DIN_SILU:
      activate_rows(DIN_SILU, layer, x, ld, rows);
      break;
    case DIN_PRELU:
      activate_rows(DIN_PRELU, layer, x, ld, rows);
      break;
    case DIN_DICE:
      activate_rows(DIN_DICE, layer, x, ld, rows);
      break;
    case DIN_ROW_DICE:
      activate_row_dice(layer, epsilon, x, ld, rows);
      break;
  }
}

static void activate_scores(din_activation kind, float *score, int64_t rows) {
  /* the scores of a tile, padded to W: one unit each, a strip wide */
  static const din_layer unit = {1, 1, 1, NULL, NULL, {NULL, NULL, NULL, NULL}, NULL};
  for (int64_t i = 0; i < rows; i += W) {
    activate(kind, &unit, 0.0f, score + i, W, 1);
  }
}

#endif
