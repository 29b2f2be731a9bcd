/* out [rows, S * W] = init + a [rows, in] . weight, from registers. Part of kernels.h.

   A register tile is R rows by V strips. Its accumulators run over `in` in order, so
   that a row's result does not depend on the rows beside it. Where a matrix is folded
   with a query (layer 1: see local_activation.c), its first tile makes the weight on
   the way, w = weight + query * product, and leaves that group of strips in `folded`
   for the tiles that follow: the folded matrix never exists as a whole. */
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
  float *folded; /* one group of strips: MAX_STRIPS * in * W */
} matrix;

/* What a tile does about folding. */
enum { PLAIN, FOLD, FOLD_AND_KEEP, FOLDED };

#if REGISTERS == 32
#define MAX_ROWS 8
#define MAX_STRIPS 5
#else
#define MAX_ROWS 6
#define MAX_STRIPS 3
#endif

/* A loop over `in` ends at a branch that is guessed wrong when the loop is long. */
#if defined(DIN_EMULATE) || defined(__SANITIZE_ADDRESS__) /* for the compiler's sake */
#define UNROLL_SOME
#else
#define UNROLL_SOME _Pragma("GCC unroll 4")
#endif

DIN_INLINE void tile(const int R, const int V, const int fold, const matrix *m,
                     const float *a, int64_t lda, int64_t strip, float *out,
                     int64_t ldo) {
  vf acc[MAX_ROWS][MAX_STRIPS], weight[MAX_STRIPS];
  const int64_t in = m->in, start = strip * in * W;
  const int folds = fold == FOLD || fold == FOLD_AND_KEEP;
  const float *w = fold == FOLDED ? m->folded : m->weight + start;
  const float *product = folds ? m->product + start : NULL, *query = m->query;
  float *folded = m->folded;
#pragma GCC unroll 16
  for (int v = 0; v < V; v++) {
    vf first = v_load(m->init + (strip + v) * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) acc[r][v] = first;
  }
  UNROLL_SOME
  for (int64_t i = 0; i < in; i++) {
    vf q = folds ? v_set(query[i]) : v_set(0.0f);
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      weight[v] = v_load(w + v * W);
      if (folds) weight[v] = v_fma(q, v_load(product + v * W), weight[v]);
      if (fold == FOLD_AND_KEEP) v_store(folded + v * W, weight[v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      vf x = v_set(a[r * lda + i]);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[r][v] = v_fma(x, weight[v], acc[r][v]);
    }
    w += V * W;
    if (folds) product += V * W;
    if (fold == FOLD_AND_KEEP) folded += V * W;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) v_store(out + r * ldo + (strip + v) * W, acc[r][v]);
  }
}

#ifdef DIN_AMX /* folds in bf16: see amx.h */
#define CASE(R, V)                                 \
  case R:                                          \
    tile(R, V, PLAIN, m, at, lda, strip, to, ldo); \
    break;
#else
#define CASE(R, V)                                             \
  case R:                                                      \
    switch (fold) {                                            \
      case FOLD:                                               \
        tile(R, V, FOLD, m, at, lda, strip, to, ldo);          \
        break;                                                 \
      case FOLD_AND_KEEP:                                      \
        tile(R, V, FOLD_AND_KEEP, m, at, lda, strip, to, ldo); \
        break;                                                 \
      case FOLDED:                                             \
        tile(R, V, FOLDED, m, at, lda, strip, to, ldo);        \
        break;                                                 \
      default:                                                 \
        tile(R, V, PLAIN, m, at, lda, strip, to, ldo);         \
    }                                                          \
    break;

#endif

/* All rows of V strips, in tiles of nearly equal height. */
#define COLUMNS(V, HIGHEST, ...)                                                      \
  static void columns_##V(const matrix *m, const float *a, int64_t lda, int64_t rows, \
                          int64_t strip, float *out, int64_t ldo) {                   \
    int64_t tiles = (rows + HIGHEST - 1) / HIGHEST, row = 0;                          \
    int fold = m->product == NULL ? PLAIN : tiles == 1 ? FOLD : FOLD_AND_KEEP;        \
    for (int64_t t = 0; t < tiles; t++) {                                             \
      int64_t next = rows * (t + 1) / tiles;                                          \
      const float *at = a + row * lda;                                                \
      float *to = out + row * ldo;                                                    \
      switch (next - row) { __VA_ARGS__ }                                             \
      row = next;                                                                     \
      if (fold == FOLD_AND_KEEP) fold = FOLDED;                                       \
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

/* The columns of one group of strips. */
static void multiply_group(const matrix *m, const float *a, int64_t lda, int64_t rows,
                           int64_t strip, int64_t some, float *out, int64_t ldo) {
  switch (some) {
    case 1:
      columns_1(m, a, lda, rows, strip, out, ldo);
      break;
    case 2:
      columns_2(m, a, lda, rows, strip, out, ldo);
      break;
    case 3:
      columns_3(m, a, lda, rows, strip, out, ldo);
      break;
#if REGISTERS == 32
    case 4:
      columns_4(m, a, lda, rows, strip, out, ldo);
      break;
    default:
      columns_5(m, a, lda, rows, strip, out, ldo);
#endif
  }
}

static void multiply(const matrix *m, const float *a, int64_t lda, int64_t rows,
                     float *out, int64_t ldo) {
  for (int64_t strip = 0, some; strip < m->strips; strip += some) {
    some = group_strips(m->strips - strip);
    multiply_group(m, a, lda, rows, strip, some, out, ldo);
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
