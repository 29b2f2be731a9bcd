/* bf16 matrix products on AMX tiles. Part of kernels.h, for isa_amx.c.

   A tile is 16 rows of 64 bytes. C [16, 16] float += A [16, 32] bf16 . B [32, 16] bf16,
   where B holds its rows in pairs: [16 pairs][16 columns][2]. `in` is padded to 32 with
   zeros; products are exact in float, sums are float.

   With DIN_EMULATE the tile instructions are plain C, to test this on any machine. */
#ifndef DIN_OPS_AMX_H_
#define DIN_OPS_AMX_H_

#include "gemm.h"
#include "isa.h"
#include "vec.h"

#define HALF_IN 32 /* values of `in` per tile */
#define TILE_ROWS 16

static int64_t half_width(int64_t in) { return din_round_up(in, HALF_IN); }

#ifdef DIN_EMULATE
static _Thread_local union {
  float c[TILE_ROWS][16];
  uint16_t h[TILE_ROWS][32];
} tiles[8];
#define TILE_START()
#define TILE_END()
#define TILE_LOAD(t, from, stride)                                             \
  for (int i_ = 0; i_ < TILE_ROWS; i_++) {                                     \
    memcpy(tiles[t].c[i_], (const char *)(from) + i_ * (int64_t)(stride), 64); \
  }
#define TILE_STORE(t, to, stride)                                      \
  for (int i_ = 0; i_ < TILE_ROWS; i_++) {                             \
    memcpy((char *)(to) + i_ * (int64_t)(stride), tiles[t].c[i_], 64); \
  }
static float bf16_to_float(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
static void tile_product(int c, int a, int b) {
  for (int i = 0; i < TILE_ROWS; i++) {
    for (int k = 0; k < 32; k++) {
      float x = bf16_to_float(tiles[a].h[i][k]);
      for (int j = 0; j < 16; j++) {
        tiles[c].c[i][j] += x * bf16_to_float(tiles[b].h[k / 2][2 * j + k % 2]);
      }
    }
  }
}
#define TILE_PRODUCT(c, a, b) tile_product(c, a, b)
#else
typedef struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the size that ldtilecfg reads");
static void start_tiles(void) {
  tile_config config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int t = 0; t < 8; t++) config.bytes[t] = 64, config.rows[t] = TILE_ROWS;
  _tile_loadconfig(&config);
}
#define TILE_START() start_tiles()
#define TILE_END() _tile_release()
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, (size_t)(stride))
#define TILE_STORE(t, to, stride) _tile_stored(t, to, (size_t)(stride))
#define TILE_PRODUCT(c, a, b) _tile_dpbf16ps(c, a, b)
#endif

/* float bits -> rounded to the nearest bf16, ties to even, in the upper half */
DIN_INLINE vi round_half(vf x) {
  vi bits = (vi)x;
  return bits + 0x7fff + ((bits >> 16) & 1);
}

/* [in, strips * W] float, packed -> bf16 as tiles read it: [strips][in / 2][W][2].
   With `product`, of the weight folded with a query: weight + query * product. */
static void pack_half(const float *weight, const float *product, const float *query,
                      int64_t in, int64_t strips, uint16_t *dst) {
  int64_t pairs = half_width(in) / 2;
  const vf zero = v_set(0.0f);
  for (int64_t strip = 0, some; strip < strips; strip += some) {
    some = group_strips(strips - strip);
    const int64_t start = strip * in * W;
    for (int64_t v = 0; v < some; v++) {
      uint16_t *out = dst + (strip + v) * pairs * 2 * W;
      for (int64_t i = 0; i < 2 * pairs; i += 2, out += 2 * W) {
        vf x[2] = {zero, zero};
        for (int64_t j = 0; j < 2 && i + j < in; j++) {
          int64_t at = start + ((i + j) * some + v) * W;
          x[j] = v_load(weight + at);
          if (product) x[j] = v_fma(v_set(query[i + j]), v_load(product + at), x[j]);
        }
        vi low = (round_half(x[0]) >> 16) & 0xffff;
        vi both = low | (round_half(x[1]) & (int32_t)0xffff0000u);
        memcpy(out, &both, sizeof both);
      }
    }
  }
}

/* rows of `in` floats, W at a time (the rows are padded to W), to bf16 rows of
   half_width(in), zeros behind */
static void to_half(const float *x, int64_t ld, int64_t rows, int64_t in, uint16_t *y) {
  int64_t width = half_width(in);
  for (int64_t r = 0; r < rows; r++, x += ld, y += width) {
    memset(y + in, 0, (size_t)(width - in) * sizeof *y);
    for (int64_t i = 0; i < in; i += W) {
      int64_t some = in - i < W ? in - i : W;
      vi bits = round_half(v_load(x + i)) >> 16;
      uint16_t halves[W];
#ifdef DIN_EMULATE
      for (int j = 0; j < W; j++) halves[j] = (uint16_t)bits[j];
#else
      _mm256_storeu_si256((__m256i *)(void *)halves,
                          _mm512_cvtepi32_epi16((__m512i)bits));
#endif
      memcpy(y + i, halves, (size_t)some * sizeof *y);
    }
  }
}

/* out [rows, strips * W] = init + a [rows, in] . weight, 32 rows at a time.
   @pre a and out have up to 15 rows more than `rows`; what those hold in `out` is lost
 */
static void multiply_half(const uint16_t *a, int64_t rows, const uint16_t *weight,
                          int64_t in, int64_t strips, const float *init, float *out,
                          int64_t ldo) {
  int64_t width = half_width(in), stride = ldo * (int64_t)sizeof(float);
  for (int64_t row = 0; row < rows; row += 2 * TILE_ROWS) {
    const uint16_t *a0 = a + row * width, *a1 = a0 + TILE_ROWS * width;
    int two = rows - row > TILE_ROWS;
    for (int64_t s = 0; s < strips; s++) {
      const uint16_t *b = weight + s * width * W;
      float *c0 = out + row * ldo + s * W, *c1 = c0 + TILE_ROWS * ldo;
      vf first = v_load(init + s * W);
      for (int64_t r = 0; r < (two ? 2 : 1) * TILE_ROWS; r++)
        v_store(c0 + r * ldo, first);
      TILE_LOAD(0, c0, stride);
      if (two) TILE_LOAD(1, c1, stride);
      for (int64_t i = 0; i < width; i += HALF_IN) {
        TILE_LOAD(2, b + i * W, 64);
        TILE_LOAD(4, a0 + i, width * 2);
        TILE_PRODUCT(0, 4, 2);
        if (two) {
          TILE_LOAD(5, a1 + i, width * 2);
          TILE_PRODUCT(1, 5, 2);
        }
      }
      TILE_STORE(0, c0, stride);
      if (two) TILE_STORE(1, c1, stride);
    }
  }
}

#endif
