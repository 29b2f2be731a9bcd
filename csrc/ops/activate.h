/* Activations over packed layers. Part of kernels.h. */
#ifndef DIN_OPS_ACTIVATE_H_
#define DIN_OPS_ACTIVATE_H_

#include <math.h>

#include "isa.h"
#include "vec.h"

/* One vector of units; p holds the layer's vectors at that strip. */
DIN_INLINE vf activate_one(const din_activation kind, vf x, const vf p[4]) {
  switch (kind) {
    case DIN_RELU:
      return v_max(v_set(0.0f), x);
    case DIN_SIGMOID:
      return v_sigmoid2(x * v_set(-LOG2E));
    case DIN_SILU:
      return x * v_sigmoid2(x * v_set(-LOG2E));
    case DIN_PRELU: /* max(x, 0) + slope * min(x, 0) */
      return v_fma(p[0], v_min(v_set(0.0f), x), v_max(v_set(0.0f), x));
    case DIN_DICE: /* x * (alpha + (1 - alpha) * sigmoid(scale * x + shift)) */
      return x * v_fma(p[3], v_sigmoid2(v_fma(x, p[0], p[1])), p[2]);
    default:
      return x;
  }
}

DIN_INLINE void load_parameters(const din_activation kind, const din_layer *layer,
                                int64_t strip, vf p[4]) {
  int count = kind == DIN_DICE ? 4 : kind == DIN_PRELU ? 1 : 0;
  for (int i = 0; i < 4; i++) {
    p[i] = i < count ? v_load(layer->p[i] + strip * W) : v_set(0.0f);
  }
}

DIN_INLINE void activate_rows(const din_activation kind, const din_layer *layer,
                              const float *x, float *y, int64_t ld, int64_t rows) {
  for (int64_t s = 0; s < layer->strips; s++) {
    vf p[4];
    load_parameters(kind, layer, s, p);
    for (int64_t r = 0; r < rows; r++) {
      v_store(y + r * ld + s * W, activate_one(kind, v_load(x + r * ld + s * W), p));
    }
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
    vf scale = v_set(-LOG2E / sqrtf(total));
    for (int64_t s = 0; s < layer->strips; s++) {
      vf value = v_load(x + s * W), alpha = v_load(layer->p[0] + s * W);
      vf p = v_sigmoid2((value - mean) * scale);
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
      activate_rows(DIN_RELU, layer, x, x, ld, rows);
      break;
    case DIN_SIGMOID:
      activate_rows(DIN_SIGMOID, layer, x, x, ld, rows);
      break;
    case DIN_SILU:
      activate_rows(DIN_SILU, layer, x, x, ld, rows);
      break;
    case DIN_PRELU:
      activate_rows(DIN_PRELU, layer, x, x, ld, rows);
      break;
    case DIN_DICE:
      activate_rows(DIN_DICE, layer, x, x, ld, rows);
      break;
    case DIN_ROW_DICE:
      activate_row_dice(layer, epsilon, x, ld, rows);
      break;
  }
}

static float activate_scalar(din_activation kind, float x) {
  vf none[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)}, y = v_set(x);
  float out[W];
  if (kind == DIN_RELU) y = activate_one(DIN_RELU, y, none);
  if (kind == DIN_SIGMOID) y = activate_one(DIN_SIGMOID, y, none);
  if (kind == DIN_SILU) y = activate_one(DIN_SILU, y, none);
  v_store(out, y);
  return out[0];
}

#endif
