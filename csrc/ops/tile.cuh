/* A warp's matrix products: 32 rows by up to 80 columns, accumulators in registers.

   A lies in shared memory, [32][ld] float. A weight [K, 8 * TILES] lies packed, in the
   order in which lanes read it; K and the columns are padded with zeros.

   Each arithmetic says which rows and columns a lane holds: its LANE_ROWS rows, the
   first half of them below row 16, and of each tile of 8 columns LANE_COLS. FULL: there
   are more than FEW_ROWS rows. The two are compiled apart: a test inside the loop, which
   all lanes answer alike, would still let them meet behind it before each product.
 */
#ifndef DIN_OPS_TILE_CUH_
#define DIN_OPS_TILE_CUH_

#include <stdint.h>

#include "mma.cuh"

#define DIN_ROWS 32
#define DIN_TILES 10 /* most tiles of 8 columns at a time */
#define DIN_LANES 32
#define ALL_LANES 0xffffffffu
#define LOG2E 1.44269504088896341f

/* Weights of K rows and so many tiles. */
static __device__ __host__ inline int64_t din_count_weights(int64_t k, int64_t tiles) {
  return k * 8 * tiles;
}

template <typename A>
struct din_lane {
  int id;
  __device__ int row(int r) const { return A::row(id, r); }
  __device__ int column(int tile, int c) const { return 8 * tile + A::column(id, c); }
};

/* 1 / (1 + 2^z), z = -x log2(e). A 2^z too small for a normal number is zero: beside 1
   it is nothing all the same. One too large for a number is infinite, and its inverse
   zero, as that of what is above 2^126, which is less than 1.2e-38. */
struct din_exact_sigmoid {
  static __device__ float of_power(float z) {
    return fast_inverse(1.0f + fast_exp2(z));
  }
  static __device__ float sigmoid(float x) { return of_power(x * -LOG2E); }
  /* Dice: v (alpha + (1 - alpha) sigmoid), from scale, shift, alpha, 1 - alpha of which
     the first two are for `of_power` */
  static __device__ float dice_share(float z) { return of_power(z); }
  static void pack_dice(float *) {}
};

/* fp32: a lane has 8 rows, 4 apart, and one column of each tile. A product is one
   multiply-add, in the order of K. */
struct din_fp32 : din_exact_sigmoid {
  static constexpr int LANE_ROWS = 8, LANE_COLS = 1, UNIT = 8, PAD = 4;
  static constexpr bool FOLDS = true, ROUNDS = false;
  static constexpr int WARPS = 8; /* of a block at most: registers for each */
  typedef float weight;
  /* [K / 4][column][4] */
  static __device__ __host__ int64_t place(int64_t k, int64_t column, int64_t tiles) {
    return (k / 4 * 8 * tiles + column) * 4 + k % 4;
  }
  static __device__ int row(int lane, int r) { return lane / 8 + 4 * r; }
  static __device__ int column(int lane, int) { return lane % 8; }
  /* a lane's columns of a tile, side by side, to be stored */
  static __device__ float take(const float *columns) { return columns[0]; }
  /* with so many rows or fewer, those of the others are left out */
  static constexpr int FEW_ROWS = 24;
  /* lanes that hold the same rows differ in these bits */
  static constexpr int ROW_PEERS = 8;
  /* K is packed in blocks of so many; the values of q for the four weights that stand
     `rest` behind a block's first, a multiple of 4 */
  static constexpr int BLOCK = 4;
  static __device__ float4 factors(const float *q, int) {
    return *reinterpret_cast<const float4 *>(q);
  }

  static __device__ float round(float x) { return x; }

  template <int TILES, bool SCALED, bool FULL>
  static __device__ void multiply(float (&acc)[LANE_ROWS][TILES * LANE_COLS],
                                  const float *a, int ld, const float *w, int depth,
                                  const float *, int rows, int lane) {
    const float *first = a + (lane / 8) * ld;
    const float4 *b_of = reinterpret_cast<const float4 *>(w) + lane % 8;
    for (int k = 0; k < depth; k += 4, b_of += 8 * TILES) {
      float4 b[TILES];
#pragma unroll
      for (int t = 0; t < TILES; t++) b[t] = b_of[8 * t];
#pragma unroll
      for (int r = 0; r < LANE_ROWS; r += 2) { /* 8 rows of the warp */
        if (!FULL && 4 * r >= rows) break;
        const float *x = first + 4 * r * ld + k;
        float4 upper = *reinterpret_cast<const float4 *>(x);
        float4 lower = *reinterpret_cast<const float4 *>(x + 4 * ld);
        add<TILES>(acc[r], upper, b);
        add<TILES>(acc[r + 1], lower, b);
      }
    }
  }

  template <int TILES>
  static __device__ void add(float (&acc)[TILES], const float4 &x,
                             const float4 (&b)[TILES]) {
#pragma unroll
    for (int t = 0; t < TILES; t++) {
      acc[t] = fmaf(x.x, b[t].x, acc[t]);
      acc[t] = fmaf(x.y, b[t].y, acc[t]);
      acc[t] = fmaf(x.z, b[t].z, acc[t]);
      acc[t] = fmaf(x.w, b[t].w, acc[t]);
    }
  }
};

/* Tensor cores: a lane has rows g, g + 8, g + 16, g + 24 and columns 2 t, 2 t + 1 of
   each tile, g = lane / 4, t = lane % 4: the layout of mma's accumulators. */
struct din_mma {
  static constexpr int LANE_ROWS = 4, LANE_COLS = 2;
  static constexpr int ROW_PEERS = 4;
  static __device__ int row(int lane, int r) { return lane / 4 + 8 * r; }
  static __device__ int column(int lane, int c) { return 2 * (lane % 4) + c; }
  static __device__ float2 take(const float *columns) {
    return make_float2(columns[0], columns[1]);
  }
  static constexpr int FEW_ROWS = DIN_ROWS / 2;
};

/* tf32, m16n8k8; THREE: each factor is a sum of two tf32 numbers, and the product of
   the two small ones is left out. */
template <bool THREE>
struct din_tf32 : din_mma, din_exact_sigmoid {
  static constexpr int UNIT = 8, PAD = 4;
  static constexpr bool FOLDS = true, ROUNDS = !THREE;
  static constexpr int WARPS = 8;
  typedef float weight;
  /* [K / 8][tile][lane][2]: rows t and t + 4 of column g */
  static __device__ __host__ int64_t place(int64_t k, int64_t column, int64_t tiles) {
    int64_t lane = column % 8 * 4 + k % 4;
    return ((k / 8 * tiles + column / 8) * DIN_LANES + lane) * 2 + k % 8 / 4;
  }
  static constexpr int BLOCK = 8;
  static __device__ float4 factors(const float *q, int rest) {
    q += rest / 2 % 4;
    return make_float4(q[0], q[4], q[1], q[5]);
  }
  static __device__ float round(float x) { return THREE ? x : to_tf32(x); }

  template <int TILES, bool SCALED, bool FULL>
  static __device__ void multiply(float (&acc)[LANE_ROWS][TILES * LANE_COLS],
                                  const float *a, int ld, const float *w, int depth,
                                  const float *, int, int lane) {
    constexpr int HALVES = FULL ? 2 : 1;
    const float *first = a + lane / 4 * ld + lane % 4;
    const float2 *b = reinterpret_cast<const float2 *>(w) + lane;
    for (int k = 0; k < depth; k += 8, b += TILES * DIN_LANES) {
      float x[2][4], rest[2][4];
#pragma unroll
      for (int m = 0; m < HALVES; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float value = first[(16 * m + i % 2 * 8) * ld + k + i / 2 * 4];
          x[m][i] = THREE ? upper_tf32(value) : to_tf32(value);
          rest[m][i] = THREE ? value - x[m][i] : 0.0f;
        }
      }
#pragma unroll
      for (int t = 0; t < TILES; t++) {
        float2 both = b[t * DIN_LANES];
        float y[2] = {both.x, both.y}, small[2];
#pragma unroll
        for (int i = 0; i < 2 && THREE; i++) {
          y[i] = upper_tf32(y[i]);
          small[i] = (i ? both.y : both.x) - y[i];
        }
#pragma unroll
        for (int m = 0; m < HALVES; m++) {
          float *c0 = &acc[2 * m][2 * t], *c1 = &acc[2 * m + 1][2 * t];
          if (THREE) {
            mma_tf32(c0, c1, rest[m], y);
            mma_tf32(c0, c1, x[m], small);
          }
          mma_tf32(c0, c1, x[m], y);
        }
      }
    }
  }
};

/* bf16, m16n8k16. The candidate is folded into the rows instead of the weight: with
   SCALED a row is multiplied by `scale` [K] on its way. */
struct din_bf16 : din_mma {
  static constexpr int UNIT = 16, PAD = 8;
  static constexpr bool FOLDS = false, ROUNDS = false;
  static constexpr int WARPS = 12; /* its warps need little shared memory */
  typedef uint16_t weight;
  /* [K / 16][tile][lane][4]: rows 2t, 2t + 1, 2t + 8, 2t + 9 of column g */
  static __device__ __host__ int64_t place(int64_t k, int64_t column, int64_t tiles) {
    int64_t lane = column % 8 * 4 + k % 8 / 2;
    int64_t at = k % 16 / 8 * 2 + k % 2;
    return ((k / 16 * tiles + column / 8) * DIN_LANES + lane) * 4 + at;
  }
  /* sigmoid(x) = (1 + tanh(x / 2)) / 2, and what this makes of Dice's parameters */
  static __device__ float sigmoid(float x) {
    return fmaf(0.5f, fast_tanh(0.5f * x), 0.5f);
  }
  static __device__ float dice_share(float z) { return fast_tanh(z); }
  static void pack_dice(float *p) {
    p[0] *= -0.5f / LOG2E, p[1] *= -0.5f / LOG2E;
    p[2] += 0.5f * p[3], p[3] *= 0.5f;
  }

  template <int TILES, bool SCALED, bool FULL>
  static __device__ void multiply(float (&acc)[LANE_ROWS][TILES * LANE_COLS],
                                  const float *a, int ld, const uint16_t *w, int depth,
                                  const float *scale, int, int lane) {
    constexpr int HALVES = FULL ? 2 : 1;
    const float *first = a + lane / 4 * ld + 2 * (lane % 4);
    const uint2 *b = reinterpret_cast<const uint2 *>(w) + lane;
    for (int k = 0; k < depth; k += 16, b += TILES * DIN_LANES) {
      uint32_t x[2][4];
      float2 q[2];
      if (SCALED) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          q[i] = *reinterpret_cast<const float2 *>(scale + k + 8 * i + 2 * (lane % 4));
        }
      }
#pragma unroll
      for (int m = 0; m < HALVES; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float2 pair = *reinterpret_cast<const float2 *>(
              first + (16 * m + i % 2 * 8) * ld + k + i / 2 * 8);
          if (SCALED) pair.x *= q[i / 2].x, pair.y *= q[i / 2].y;
          x[m][i] = to_bf16x2(pair.x, pair.y);
        }
      }
#pragma unroll
      for (int t = 0; t < TILES; t++) {
        uint2 both = b[t * DIN_LANES];
        const uint32_t y[2] = {both.x, both.y};
#pragma unroll
        for (int m = 0; m < HALVES; m++) {
          mma_bf16(&acc[2 * m][2 * t], &acc[2 * m + 1][2 * t], x[m], y);
        }
      }
    }
  }
};

#endif
