/* out [rows, S * W] = init + a [rows, in] . weight, from registers. Part of kernels.h.

   A register tile is R rows by V strips. Its accumulators run over `in` in order, so
   that a row's result does not depend on the rows beside it. With `fold`, the weight of
   one candidate is made on the way, w = behavior + q * product (layer 1: see
   local_activation.c), used, and left in `folded` for the tiles that follow. */
#ifndef DIN_OPS_GEMM_H_
#define DIN_OPS_GEMM_H_

#include "isa.h"
#include "vec.h"

typedef struct matrix {
  const float *weight; /* packed */
  int64_t in, strips;
  const float *init; /* [S * W] */
  /* folding, or product == NULL */
  const float *product, *query;
  float *folded; /* packed */
} matrix;

#if REGISTERS == 32
#define MAX_ROWS 8
#define MAX_STRIPS 5
#else
#define MAX_ROWS 6
#define MAX_STRIPS 3
#endif

DIN_INLINE void tile(const int R, const int V, const int fold, const matrix *m,
                     const float *a, int64_t lda, int64_t strip, float *out,
                     int64_t ldo) {
  vf acc[MAX_ROWS][MAX_STRIPS], weight[MAX_STRIPS];
  const int64_t in = m->in, start = strip * in * W;
  const float *w = (fold || m->product == NULL ? m->weight : m->folded) + start;
  const float *product = fold ? m->product + start : NULL, *query = m->query;
  float *folded = fold ? m->folded + start : NULL;
#pragma GCC unroll 16
  for (int v = 0; v < V; v++) {
    vf first = v_load(m->init + (strip + v) * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) acc[r][v] = first;
  }
#pragma GCC unroll 1
  for (int64_t i = 0; i < in; i++) {
    vf q = fold ? v_set(query[i]) : v_set(0.0f);
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      weight[v] = v_load(w + v * W);
      if (fold) {
        weight[v] = v_fma(q, v_load(product + v * W), weight[v]);
        v_store(folded + v * W, weight[v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      vf x = v_set(a[r * lda + i]);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[r][v] = v_fma(x, weight[v], acc[r][v]);
    }
    w += V * W;
    if (fold) product += V * W, folded += V * W;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) v_store(out + r * ldo + (strip + v) * W, acc[r][v]);
  }
}

#define CASE(R, V)                               \
  case R:                                        \
    if (fold) {                                  \
      tile(R, V, 1, m, at, lda, strip, to, ldo); \
    } else {                                     \
      tile(R, V, 0, m, at, lda, strip, to, ldo); \
    }                                            \
    break;

/* All rows of V strips, in tiles of nearly equal height; only the first tile folds. */
#define COLUMNS(V, HIGHEST, ...)                                                      \
  static void columns_##V(const matrix *m, const float *a, int64_t lda, int64_t rows, \
                          int64_t strip, int fold, float *out, int64_t ldo) {         \
    int64_t tiles = (rows + HIGHEST - 1) / HIGHEST, row = 0;                          \
    for (int64_t t = 0; t < tiles; t++) {                                             \
      int64_t next = rows * (t + 1) / tiles;                                          \
      const float *at = a + row * lda;                                                \
      float *to = out + row * ldo;                                                    \
      switch (next - row) { __VA_ARGS__ }                                             \
      row = next;                                                                     \
      fold = 0;                                                                       \
    }                                                                                 \
  }

#if REGISTERS == 32
COLUMNS(1, 8,
        CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(5, 1) CASE(6, 1) CASE(7, 1)
            CASE(8, 1))
COLUMNS(2, 8,
        CASE(1, 2) CASE(2, 2) CASE(3, 2) CASE(4, 2) CASE(5, 2) CASE(6, 2) CASE(7, 2)
            CASE(8, 2))
COLUMNS(3, 8,
        CASE(1, 3) CASE(2, 3) CASE(3, 3) CASE(4, 3) CASE(5, 3) CASE(6, 3) CASE(7, 3)
            CASE(8, 3))
COLUMNS(4, 6, CASE(1, 4) CASE(2, 4) CASE(3, 4) CASE(4, 4) CASE(5, 4) CASE(6, 4))
COLUMNS(5, 5, CASE(1, 5) CASE(2, 5) CASE(3, 5) CASE(4, 5) CASE(5, 5))
#else
COLUMNS(1, 6, CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(5, 1) CASE(6, 1))
COLUMNS(2, 6, CASE(1, 2) CASE(2, 2) CASE(3, 2) CASE(4, 2) CASE(5, 2) CASE(6, 2))
COLUMNS(3, 4, CASE(1, 3) CASE(2, 3) CASE(3, 3) CASE(4, 3))
#endif

/* How many strips the next group has, of those that are left: the tiles that keep most
   accumulators in registers. The packed layout follows it. */
static int64_t group_strips(int64_t left) {
#if REGISTERS == 32
  return left == 5 || left < 4 ? left : 4;
#else
  return left == 3 || left < 2 ? left : 2;
#endif
}

static void multiply(const matrix *m, const float *a, int64_t lda, int64_t rows,
                     int fold, float *out, int64_t ldo) {
  for (int64_t strip = 0, some; strip < m->strips; strip += some) {
    some = group_strips(m->strips - strip);
    switch (some) {
      case 1:
        columns_1(m, a, lda, rows, strip, fold, out, ldo);
        break;
      case 2:
        columns_2(m, a, lda, rows, strip, fold, out, ldo);
        break;
      case 3:
        columns_3(m, a, lda, rows, strip, fold, out, ldo);
        break;
#if REGISTERS == 32
      case 4:
        columns_4(m, a, lda, rows, strip, fold, out, ldo);
        break;
      default:
        columns_5(m, a, lda, rows, strip, fold, out, ldo);
#endif
    }
  }
}

/* Packs [in, out], row major, as tiles read it: groups of strips, each [in][V][W],
   zeros behind the last column. */
static void pack(const float *src, int64_t in, int64_t out, float *dst) {
  int64_t strips = (out + W - 1) / W;
  for (int64_t strip = 0, some; strip < strips; strip += some) {
    some = group_strips(strips - strip);
    int64_t start = strip * W, width = some * W;
    int64_t real = out - start < width ? out - start : width;
    for (int64_t i = 0; i < in; i++, dst += width) {
      memcpy(dst, src + i * out + start, (size_t)real * sizeof *dst);
      memset(dst + real, 0, (size_t)(width - real) * sizeof *dst);
    }
  }
}

#endif
