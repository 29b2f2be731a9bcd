/* LocalActivation on CUDA: what local_activation.c draws, a warp for each candidate.

   A warp reads 32 behaviors at a time from the tables into shared memory and takes them
   through all layers: products in registers (tile.cuh), activations on their way back
   to shared memory. Its candidate's folded first weight lies beside them, or, in bf16,
   all candidates' weights do and the candidate is folded into the behaviors. No
   [B, T, D] and no [B, T, H] exists.

   Warps take candidates from a counter, so that work follows the valid pairs. A long
   history of few candidates is cut into chunks; the warp that ends last adds up.

   One file above 400 lines: a warp's way from ids to interest is read best in one
   place. */
#include <math.h>
#include <string.h>

#include <atomic>
#include <new>
#include <vector>

#include "cuda.h"
#include "launch.cuh"
#include "tile.cuh"

#define MAX_LAYERS 16
#define CHUNK_ROWS 256            /* of a chunk at least */
#define MOST_SCRATCH (64ll << 20) /* bytes for the sums of all chunks */
#define AT_A_TIME 4               /* loads of a lane from the tables */
#define RING 64                   /* counters of launches at work at a time */
#define CAPTURED 4032 /* counters of launches in captured graphs: theirs for good */

namespace {

struct field {
  const void *rows;
  const int64_t *ids;
  int64_t num_rows;
  int dim, is_half;
  int step;    /* values of a row that are read at a time: 4 or 1 */
  int inverse; /* of dim / step, in 65536ths, rounded up */
  /* n / (dim / step), for n up to 32; and up to 128 for a dim up to 128 */
  __device__ int divide(int n) const { return n * inverse >> 16; }
};

/* A layer's place among the packed weights, in floats. Its columns are `chunks` times
   8 * tiles, the last of them 8 * last_tiles. */
struct layer_place {
  int depth, units, tiles, chunks, last_tiles, columns;
  int64_t weight, bias, parameters;
};

struct counter {
  unsigned next, gone;
};

struct launch {
  /* the model */
  const float *weights;
  int shared_floats;    /* of them, from the first: copied to shared memory */
  int workspace_floats; /* of a warp */
  int width, padded, ld, num_layers, num_fields, num_slots;
  int fold_floats, folds_once, two_buffers;
  int has_product, has_outer;
  int activation, output_activation, softmax, attended, padding_row;
  float epsilon, scale, dot_bias;
  int64_t query, product, outer, outer_size, dot;
  layer_place layers[MAX_LAYERS];
  int slots[DIN_MAX_FIELDS];
  /* the batch */
  field fields[DIN_MAX_FIELDS], candidate_fields[DIN_MAX_FIELDS];
  int64_t num_requests, num_positions;
  int packed, chunks, chunk_rows;
  unsigned num_items;
  const int64_t *request_of_candidate, *lengths;
  const float *mask;
  float *interest, *weight;
  counter *work;
  double *partials; /* of each chunk: highest, sum, [D] */
  unsigned *arrived;
};

/* A warp's shared memory. */
struct workspace {
  float *folded, *x, *y, *query, *first, *score;
  double *total;
  int *ids; /* [fields][32]; -1: a row of zeros */
};

__host__ __device__ int round_up(int n, int unit) {
  return (n + unit - 1) / unit * unit;
}

__device__ workspace find_workspace(const launch &p, float *memory) {
  workspace r;
  r.total = reinterpret_cast<double *>(memory), memory += 2 * p.padded;
  r.folded = memory, memory += p.fold_floats;
  r.x = memory, memory += DIN_ROWS * p.ld;
  r.y = p.two_buffers ? memory : r.x, memory += p.two_buffers ? DIN_ROWS * p.ld : 0;
  r.query = memory, memory += p.padded;
  r.first = memory, memory += p.layers[0].columns;
  r.score = memory, memory += DIN_ROWS;
  r.ids = reinterpret_cast<int *>(memory);
  return r;
}

int count_workspace(const launch &p) {
  int floats = 2 * p.padded + p.fold_floats + DIN_ROWS * p.ld * (1 + p.two_buffers);
  floats += p.padded + p.layers[0].columns + DIN_ROWS + DIN_ROWS * p.num_fields;
  return round_up(floats, 4);
}

/* The weights at `place`: in shared memory, where they fit. */
__device__ const float *find(const launch &p, const float *shared, int64_t place) {
  return place < p.shared_floats ? shared + place : p.weights + place;
}

__device__ float to_float(float x) { return x; }
__device__ float to_float(uint16_t half) { return from_half(half); }

__device__ float read_value(const field &f, int64_t at) {
  if (f.is_half) return to_float(static_cast<const uint16_t *>(f.rows)[at]);
  return static_cast<const float *>(f.rows)[at];
}

__device__ float sum_of_warp(float x) {
  for (int bit = DIN_LANES / 2; bit; bit /= 2) x += __shfl_xor_sync(ALL_LANES, x, bit);
  return x;
}

__device__ float highest_of_warp(float x) {
  for (int bit = DIN_LANES / 2; bit; bit /= 2) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, bit));
  }
  return x;
}

/* ---- one candidate ---- */

/* query [padded] = the candidate's rows; false where an id is out of range */
__device__ bool read_query(const launch &p, int64_t n, float *query, int lane) {
  bool good = true;
  int at = 0;
  for (int s = 0; s < p.num_slots; s++) {
    int slot = p.slots[s];
    if (slot < 0) {
      for (int i = lane; i < -slot; i += DIN_LANES) query[at + i] = 0.0f;
      at -= slot;
      continue;
    }
    const field &f = p.candidate_fields[slot];
    int64_t id = f.ids[n];
    bool here = static_cast<uint64_t>(id) < static_cast<uint64_t>(f.num_rows);
    for (int i = lane; i < f.dim; i += DIN_LANES) {
      query[at + i] = here ? read_value(f, id * f.dim + i) : 0.0f;
    }
    good = good && here;
    at += f.dim;
  }
  for (int i = p.width + lane; i < p.padded; i += DIN_LANES) query[i] = 0.0f;
  __syncwarp();
  return good;
}

__device__ float4 add_product(float4 sum, float4 x, float4 y) {
  return make_float4(fmaf(x.x, y.x, sum.x), fmaf(x.y, y.y, sum.y),
                     fmaf(x.z, y.z, sum.z), fmaf(x.w, y.w, sum.w));
}

/* first [columns] = bias_1 + query . weight_query */
__device__ void start_layers(const launch &p, const float *shared, const workspace &r,
                             int lane) {
  int quads = p.layers[0].columns / 4;
  const float4 *weight = reinterpret_cast<const float4 *>(find(p, shared, p.query));
  const float4 *bias =
      reinterpret_cast<const float4 *>(find(p, shared, p.layers[0].bias));
  for (int quad = lane; quad < quads; quad += DIN_LANES) {
    float4 sum = bias[quad];
#pragma unroll 8
    for (int d = 0; d < p.width; d++) {
      float q = r.query[d];
      sum = add_product(sum, make_float4(q, q, q, q), weight[d * quads + quad]);
    }
    reinterpret_cast<float4 *>(r.first)[quad] = sum;
  }
}

/* A lane's place in the weights that are folded, in fours, and the block of K and the
   place in it that this is. */
struct fold_place {
  const float4 *behavior, *product, *outer;
  float4 *folded;
  int at, k, rest, block;
};

/* N fours, a warp's width apart. `folded` might be what is read, for all that the
   compiler knows: so all loads stand before the first store. */
template <typename A, int N>
__device__ void fold_fours(const launch &p, const float *query, fold_place &f) {
  const int blocks_on = 4 * DIN_LANES / f.block, places_on = 4 * DIN_LANES % f.block;
  float4 w[N];
#pragma unroll
  for (int n = 0; n < N; n++) w[n] = f.behavior[f.at + n * DIN_LANES];
#pragma unroll
  for (int n = 0; n < N && p.has_product; n++) {
    float4 factors = A::factors(query + f.k, f.rest);
    w[n] = add_product(w[n], factors, f.product[f.at + n * DIN_LANES]);
    f.k += blocks_on * A::BLOCK, f.rest += places_on;
    if (f.rest >= f.block) f.rest -= f.block, f.k += A::BLOCK;
  }
  for (int i = 0; p.has_outer && i < p.width; i++) {
    float q = query[i];
    const float4 *outer = f.outer + i * (p.outer_size / 4) + f.at;
#pragma unroll
    for (int n = 0; n < N; n++) {
      w[n] = add_product(w[n], make_float4(q, q, q, q), outer[n * DIN_LANES]);
    }
  }
#pragma unroll
  for (int n = 0; n < N; n++) {
    f.folded[f.at + n * DIN_LANES] = make_float4(A::round(w[n].x), A::round(w[n].y),
                                                 A::round(w[n].z), A::round(w[n].w));
  }
  f.at += N * DIN_LANES;
}

/* folded = behavior (+ q product) (+ sum over i of q_i outer_i), columns of a chunk */
template <typename A>
__device__ void fold(const launch &p, const float *shared, const workspace &r,
                     int chunk, int lane) {
  const layer_place &l = p.layers[0];
  int tiles = chunk + 1 < l.chunks ? l.tiles : l.last_tiles;
  int64_t start = chunk * din_count_weights(l.depth, l.tiles) / 4;
  int quads = int(din_count_weights(l.depth, tiles) / 4), block = A::BLOCK * 8 * tiles;
  fold_place f;
  f.behavior = reinterpret_cast<const float4 *>(find(p, shared, l.weight)) + start;
  f.product = reinterpret_cast<const float4 *>(find(p, shared, p.product)) + start;
  f.outer = reinterpret_cast<const float4 *>(p.weights + p.outer) + start;
  f.folded = reinterpret_cast<float4 *>(r.folded) + (p.folds_once ? start : 0);
  f.at = lane, f.block = block;
  f.k = 4 * lane / block * A::BLOCK, f.rest = 4 * lane % block;
  int left = quads / DIN_LANES;
  for (; left >= AT_A_TIME; left -= AT_A_TIME) {
    fold_fours<A, AT_A_TIME>(p, r.query, f);
  }
  while (f.at < quads) fold_fours<A, 1>(p, r.query, f);
}

__device__ void load(const float *from, float &to) { to = *from; }
__device__ void load(const uint16_t *from, float &to) { to = from_half(*from); }
__device__ void load(const float *from, float4 &to) {
  to = *reinterpret_cast<const float4 *>(from);
}
__device__ void load(const uint16_t *from, float4 &to) {
  uint2 all = *reinterpret_cast<const uint2 *>(from);
  to = make_float4(from_half(uint16_t(all.x)), from_half(uint16_t(all.x >> 16)),
                   from_half(uint16_t(all.y)), from_half(uint16_t(all.y >> 16)));
}

/* x [rows, dim] = the rows of a table, a V of each lane's at a time. Several are on
   their way before the first is used. `x`, `ld` and a workspace's parts are whole fours
   of floats, so that a float4 is stored at once. */
template <typename T, typename V>
__device__ void read_rows(const field &f, const int *ids, float *x, int ld, int rows,
                          int lane) {
  constexpr int STEP = sizeof(V) / sizeof(float);
  const char *table = static_cast<const char *>(f.rows);
  const unsigned bytes = unsigned(f.dim) * unsigned(sizeof(T));
  const int across = f.dim / STEP;
  int row = f.divide(lane), part = lane - row * across;
  const int down = f.divide(DIN_LANES), right = DIN_LANES - down * across;
  while (row < rows) {
    V values[AT_A_TIME];
    int places[AT_A_TIME];
#pragma unroll
    for (int n = 0; n < AT_A_TIME; n++) {
      int id = row < rows ? ids[row] : -1;
      places[n] = row < rows ? row * ld + STEP * part : -1;
      values[n] = {};
      if (id >= 0) {
        const char *from = table + uint64_t(unsigned(id)) * bytes;
        load(reinterpret_cast<const T *>(from) + STEP * part, values[n]);
      }
      row += down, part += right;
      if (part >= across) part -= across, row++;
    }
#pragma unroll
    for (int n = 0; n < AT_A_TIME; n++) {
      if (places[n] >= 0) store_shared(x + places[n], values[n]);
    }
  }
}

/* x [rows, D] = the rows of the tables; false where an id is out of range */
__device__ bool read_behaviors(const launch &p, const workspace &r, int64_t at,
                               int rows, bool valid, int lane) {
  bool good = true;
  int offset = 0;
  for (int i = 0; i < p.num_fields; i++) {
    const field &f = p.fields[i];
    int id = -1;
    if (valid) {
      int64_t wide = f.ids[at + lane];
      bool here = static_cast<uint64_t>(wide) < static_cast<uint64_t>(f.num_rows);
      id = here ? static_cast<int>(wide) : -1;
      good = good && here;
    }
    int *ids = r.ids + i * DIN_ROWS;
    ids[lane] = id;
    __syncwarp();
    float *x = r.x + offset;
    if (f.step == 4 && f.is_half) {
      read_rows<uint16_t, float4>(f, ids, x, p.ld, rows, lane);
    } else if (f.step == 4) {
      read_rows<float, float4>(f, ids, x, p.ld, rows, lane);
    } else if (f.is_half) {
      read_rows<uint16_t, float>(f, ids, x, p.ld, rows, lane);
    } else {
      read_rows<float, float>(f, ids, x, p.ld, rows, lane);
    }
    offset += f.dim;
  }
  int rest = p.padded - p.width;
  for (int i = lane; i < rows * rest; i += DIN_LANES) {
    r.x[i / rest * p.ld + p.width + i % rest] = 0.0f;
  }
  __syncwarp();
  return good;
}

/* y, or NaN where x is not finite: what limits its input, or takes the larger of it and
   another, may not hide that a sum before it overflowed. */
__device__ __forceinline__ float if_finite(float x, float y) {
  return fmaf(x, 0.0f, y);
}

template <typename A, int COLUMNS>
__device__ void activate(int kind, const float4 *parameters, din_lane<A> lane,
                         float (&x)[A::LANE_ROWS][COLUMNS]) {
#define EACH(expression)                                                          \
  _Pragma("unroll") for (int c = 0; c < COLUMNS; c++) {                           \
    const float4 q = parameters[lane.column(c / A::LANE_COLS, c % A::LANE_COLS)]; \
    (void)q;                                                                      \
    _Pragma("unroll") for (int r = 0; r < A::LANE_ROWS; r++) {                    \
      float v = x[r][c];                                                          \
      x[r][c] = (expression);                                                     \
    }                                                                             \
  }                                                                               \
  break
  switch (kind) {
    case DIN_RELU:
      EACH(if_finite(v, fmaxf(v, 0.0f)));
    case DIN_SIGMOID:
      EACH(if_finite(v, A::sigmoid(v)));
    case DIN_SILU:
      EACH(v * A::sigmoid(v));
    case DIN_PRELU:
      EACH(if_finite(v, fmaf(q.x, fminf(v, 0.0f), fmaxf(v, 0.0f))));
    case DIN_DICE: /* v * (alpha + (1 - alpha) * sigmoid(scale * v + shift)) */
      EACH(v * fmaf(q.w, A::dice_share(fmaf(v, q.x, q.y)), q.z));
    default:
      break;
  }
#undef EACH
}

template <typename A, int TILES, bool SCALED>
__device__ __forceinline__ void multiply(
    float (&acc)[A::LANE_ROWS][TILES * A::LANE_COLS], const float *a, int ld,
    const float *weight, int depth, const float *scale, int rows, int lane) {
  const auto *w = reinterpret_cast<const typename A::weight *>(weight);
  if (rows > A::FEW_ROWS) {
    A::template multiply<TILES, SCALED, true>(acc, a, ld, w, depth, scale, rows, lane);
  } else {
    A::template multiply<TILES, SCALED, false>(acc, a, ld, w, depth, scale, rows, lane);
  }
}

/* One chunk of columns of one layer: to `out`, or, with `dot`, added to sums [rows]. */
template <typename A, int TILES>
__device__ void run_chunk(const launch &p, const float *shared, const workspace &r,
                          int l, int chunk, const float *in, float *out,
                          const float *dot, int rows, din_lane<A> lane,
                          float (&sums)[A::LANE_ROWS]) {
  constexpr int COLUMNS = TILES * A::LANE_COLS;
  const layer_place &place = p.layers[l];
  const float *init = l ? find(p, shared, place.bias) : r.first;
  int64_t start = chunk * (din_count_weights(place.depth, place.tiles) *
                           int64_t(sizeof(typename A::weight)) / 4);
  int column = chunk * 8 * place.tiles;
  float acc[A::LANE_ROWS][COLUMNS];
#pragma unroll
  for (int c = 0; c < COLUMNS; c++) {
    float first = init[column + lane.column(c / A::LANE_COLS, c % A::LANE_COLS)];
#pragma unroll
    for (int i = 0; i < A::LANE_ROWS; i++) acc[i][c] = first;
  }
  if (A::FOLDS && l == 0) {
    const float *w = r.folded + (p.folds_once ? start : 0);
    multiply<A, TILES, false>(acc, in, p.ld, w, place.depth, nullptr, rows, lane.id);
  } else {
    const float *w = find(p, shared, place.weight) + start;
    multiply<A, TILES, false>(acc, in, p.ld, w, place.depth, nullptr, rows, lane.id);
    if (!A::FOLDS && l == 0 && p.has_product) {
      w = find(p, shared, p.product) + start;
      multiply<A, TILES, !A::FOLDS>(acc, in, p.ld, w, place.depth, r.query, rows,
                                    lane.id);
    }
  }
  const float4 *parameters =
      reinterpret_cast<const float4 *>(find(p, shared, place.parameters)) + column;
  activate<A, COLUMNS>(p.activation, parameters, lane, acc);
  if (dot) {
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      float factor = dot[column + lane.column(c / A::LANE_COLS, c % A::LANE_COLS)];
#pragma unroll
      for (int i = 0; i < A::LANE_ROWS; i++) sums[i] = fmaf(acc[i][c], factor, sums[i]);
    }
    return;
  }
  __syncwarp(); /* `out` may be `in` */
#pragma unroll
  for (int i = 0; i < A::LANE_ROWS; i++) {
    if (i >= A::LANE_ROWS / 2 && rows <= DIN_ROWS / 2) break;
    float *row = out + lane.row(i) * p.ld + column;
#pragma unroll
    for (int c = 0; c < COLUMNS; c += A::LANE_COLS) {
      store_shared(row + lane.column(c / A::LANE_COLS, 0), A::take(&acc[i][c]));
    }
  }
}

/* p = sigmoid((x - mean) / sqrt(sum of ((x - mean)^2 + epsilon))), a lane for a row;
   returns the row's product with `dot`, if any */
__device__ float run_row_dice(const launch &p, const layer_place &place, float *x,
                              const float4 *parameters, const float *dot) {
  float sum = 0.0f, squares = 0.0f, product = 0.0f;
  for (int u = 0; u < place.units; u++) sum += x[u];
  float mean = sum / float(place.units);
  for (int u = 0; u < place.units; u++) {
    squares = fmaf(x[u] - mean, x[u] - mean, squares);
  }
  float factor =
      if_finite(squares, -LOG2E / sqrtf(squares + float(place.units) * p.epsilon));
  for (int u = 0; u < place.units; u++) {
    float share = __fdividef(1.0f, 1.0f + exp2f((x[u] - mean) * factor));
    x[u] *= fmaf(parameters[u].y, share, parameters[u].x);
    if (dot) product = fmaf(x[u], dot[u], product);
  }
  return product;
}

/* All layers over the behaviors in r.x; returns the score of row `lane`. */
template <typename A>
__device__ float run_layers(const launch &p, const float *shared, const workspace &r,
                            int rows, din_lane<A> lane) {
  float *in = r.x, *out = r.y;
  float sums[A::LANE_ROWS] = {};
  bool by_rows = p.activation == DIN_ROW_DICE;
  float score = 0.0f;
  for (int l = 0; l < p.num_layers; l++) {
    const layer_place &place = p.layers[l];
    bool last = l + 1 == p.num_layers;
    const float *dot = last ? find(p, shared, p.dot) : nullptr;
    for (int chunk = 0; chunk < place.chunks; chunk++) {
      if constexpr (A::FOLDS) {
        if (l == 0 && !p.folds_once) {
          __syncwarp();
          fold<A>(p, shared, r, chunk, lane.id);
          __syncwarp();
        }
      }
      int tiles = chunk + 1 < place.chunks ? place.tiles : place.last_tiles;
      const float *here = by_rows ? nullptr : dot;
#define CASE(n)                                                               \
  case n:                                                                     \
    run_chunk<A, n>(p, shared, r, l, chunk, in, out, here, rows, lane, sums); \
    break
      switch (tiles) {
        CASE(2);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(8);
        CASE(10);
      }
#undef CASE
    }
    __syncwarp();
    if (by_rows) {
      const float4 *parameters =
          reinterpret_cast<const float4 *>(find(p, shared, place.parameters));
      if (lane.id < rows) {
        score = run_row_dice(p, place, out + lane.id * p.ld, parameters, dot);
      }
      __syncwarp();
    }
    float *swap = in;
    in = out, out = swap;
  }
  if (!by_rows) {
#pragma unroll
    for (int i = 0; i < A::LANE_ROWS; i++) {
      for (int bit = 1; bit < A::ROW_PEERS; bit *= 2) {
        sums[i] += __shfl_xor_sync(ALL_LANES, sums[i], bit);
      }
      if (lane.id % A::ROW_PEERS == 0) r.score[lane.row(i)] = sums[i];
    }
    __syncwarp();
    score = r.score[lane.id];
  }
  score += p.dot_bias;
  if (p.output_activation == DIN_RELU) {
    score = if_finite(score, fmaxf(score, 0.0f));
  } else if (p.output_activation != DIN_NONE) {
    float share = __fdividef(1.0f, 1.0f + exp2f(score * -LOG2E));
    score = p.output_activation == DIN_SILU ? score * share : if_finite(score, share);
  }
  return score * p.scale;
}

/* total [dim] of one field += sum over rows of score * behavior: fours of columns,
   several rows at a time */
__device__ void add_quads(const field &f, const int *ids, const float *score, int rows,
                          double *total, int lane) {
  const int quads = f.dim / 4, fours = f.step == 4 ? 1 : 4;
  const int peers = f.divide(fours * DIN_LANES), first = f.divide(fours * lane);
  const int quad = lane - first * quads;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const char *column = static_cast<const char *>(f.rows) + 16 * quad;
  for (int row = first; row < rows; row += AT_A_TIME * peers) {
    float4 values[AT_A_TIME];
    float factors[AT_A_TIME];
#pragma unroll
    for (int n = 0; n < AT_A_TIME; n++) {
      int at = row + n * peers, id = at < rows ? ids[at] : -1;
      factors[n] = id >= 0 ? score[at] : 0.0f;
      values[n] = {};
      if (id >= 0) {
        const char *from = column + uint64_t(unsigned(id)) * unsigned(16 * quads);
        values[n] = *reinterpret_cast<const float4 *>(from);
      }
    }
#pragma unroll
    for (int n = 0; n < AT_A_TIME; n++) {
      float q = factors[n];
      sum = add_product(sum, make_float4(q, q, q, q), values[n]);
    }
  }
  __syncwarp();
  for (int bit = DIN_LANES / 2; bit >= quads; bit /= 2) {
    sum.x += __shfl_xor_sync(ALL_LANES, sum.x, bit);
    sum.y += __shfl_xor_sync(ALL_LANES, sum.y, bit);
    sum.z += __shfl_xor_sync(ALL_LANES, sum.z, bit);
    sum.w += __shfl_xor_sync(ALL_LANES, sum.w, bit);
  }
  if (lane >= quads) return;
  total += 4 * quad;
  total[0] += double(sum.x), total[1] += double(sum.y);
  total[2] += double(sum.z), total[3] += double(sum.w);
}

template <typename T>
__device__ void add_columns(const field &f, const T *table, const int *ids,
                            const float *score, int rows, double *total, int lane) {
  for (int d = lane; d < f.dim; d += DIN_LANES) {
    float sum = 0.0f;
#pragma unroll 8
    for (int row = 0; row < rows; row++) {
      if (ids[row] < 0) continue;
      sum = fmaf(score[row], to_float(table[int64_t(ids[row]) * f.dim + d]), sum);
    }
    total[d] += double(sum);
  }
}

/* total [D] += sum over rows of score * behavior, read again: they are near. */
__device__ void add_behaviors(const launch &p, const workspace &r, int rows, int lane) {
  double *total = r.total;
  for (int i = 0; i < p.num_fields; i++) {
    const field &f = p.fields[i];
    const int *ids = r.ids + i * DIN_ROWS;
    int quads = f.dim / 4;
    if (f.is_half) {
      add_columns(f, static_cast<const uint16_t *>(f.rows), ids, r.score, rows, total,
                  lane);
    } else if (f.dim % 4 == 0 && quads <= DIN_LANES && (quads & (quads - 1)) == 0) {
      add_quads(f, ids, r.score, rows, total, lane);
    } else {
      add_columns(f, static_cast<const float *>(f.rows), ids, r.score, rows, total,
                  lane);
    }
    total += f.dim;
  }
}

/* A softmax over scores that arrive in blocks, relative to the highest so far. */
struct softmax {
  float highest;
  double sum;
};

/* The history of a candidate, as far as it can be read. */
struct history {
  int64_t at, length; /* where its first id stands, and how many there are */
  bool good;
};

__device__ history find_history(const launch &p, int64_t n) {
  int64_t request = p.request_of_candidate[n];
  history h = {0, 0, uint64_t(request) < uint64_t(p.num_requests)};
  if (!h.good) return h;
  if (p.packed) {
    int64_t start = p.lengths[request], stop = p.lengths[request + 1];
    h.good = start >= 0 && start <= stop && stop <= p.num_positions;
    if (h.good) h.at = start, h.length = stop - start;
    return h;
  }
  h.at = request * p.num_positions;
  h.length = p.mask || p.attended ? p.num_positions : p.lengths[request];
  if (!p.mask && !p.attended) {
    h.good = uint64_t(h.length) <= uint64_t(p.num_positions);
    if (!h.good) h.length = 0;
  }
  return h;
}

/* Rows [first, last) of a history -> r.total and soft; false where it cannot be read */
template <typename A>
__device__ bool attend_rows(const launch &p, const float *shared, const workspace &r,
                            int64_t n, const history &h, int64_t first, int64_t last,
                            softmax &soft, din_lane<A> lane) {
  bool good = read_query(p, n, r.query, lane.id);
  start_layers(p, shared, r, lane.id);
  if constexpr (A::FOLDS) {
    for (int c = 0; p.folds_once && c < p.layers[0].chunks; c++) {
      fold<A>(p, shared, r, c, lane.id);
    }
  }
  __syncwarp();
  for (int64_t row = first; row < last; row += DIN_ROWS) {
    int rows = last - row < DIN_ROWS ? int(last - row) : DIN_ROWS;
    bool valid = lane.id < rows;
    if (p.mask && valid) {
      float kept = p.mask[h.at + row + lane.id];
      valid = kept == 1.0f;
      good = good && (valid || kept == 0.0f);
    }
    good = read_behaviors(p, r, h.at + row, rows, valid, lane.id) && good;
    float score = run_layers<A>(p, shared, r, rows, lane);
    if (p.weight && valid) p.weight[n * p.num_positions + row + lane.id] = score;
    if (p.softmax) {
      float highest = highest_of_warp(valid ? score : -INFINITY);
      highest = fmaxf(highest, soft.highest);
      float share = if_finite(score, exp2f((score - highest) * LOG2E));
      score = valid ? share : 0.0f;
      if (highest > soft.highest) {
        double down = exp(double(soft.highest) - double(highest));
        soft.sum *= down, soft.highest = highest;
        for (int d = lane.id; d < p.width; d += DIN_LANES) r.total[d] *= down;
      }
      soft.sum += double(sum_of_warp(score));
    }
    r.score[lane.id] = valid ? score : 0.0f;
    __syncwarp();
    add_behaviors(p, r, rows, lane.id);
    __syncwarp();
  }
  return good;
}

/* Adds up the chunks of a candidate; the last of them to arrive does. False: not yet.
 */
__device__ bool join_chunks(const launch &p, const workspace &r, int64_t n, int chunk,
                            softmax &soft, int lane) {
  int64_t size = 2 + p.width;
  double *mine = p.partials + (n * p.chunks + chunk) * size;
  for (int d = lane; d < p.width; d += DIN_LANES) mine[2 + d] = r.total[d];
  if (lane == 0) mine[0] = double(soft.highest), mine[1] = soft.sum;
  __threadfence();
  __syncwarp();
  unsigned before = lane == 0 ? atomicAdd(p.arrived + n, 1u) : 0;
  before = __shfl_sync(ALL_LANES, before, 0);
  if (before + 1 < unsigned(p.chunks)) return false;
  __threadfence();
  const double *all = p.partials + n * p.chunks * size;
  double highest = -INFINITY, sum = 0.0;
  for (int c = 0; c < p.chunks; c++) highest = fmax(highest, __ldcg(all + c * size));
  for (int d = lane; d < p.width; d += DIN_LANES) r.total[d] = 0.0;
  for (int c = 0; c < p.chunks; c++) {
    double mine_highest = __ldcg(all + c * size), down = 1.0;
    if (p.softmax) {
      if (mine_highest == -INFINITY) { /* an empty chunk, or the mark of a bad one */
        sum += __ldcg(all + c * size + 1);
        continue;
      }
      down = exp(mine_highest - highest);
    }
    sum += __ldcg(all + c * size + 1) * down;
    for (int d = lane; d < p.width; d += DIN_LANES) {
      r.total[d] += __ldcg(all + c * size + 2 + d) * down;
    }
  }
  soft.highest = float(highest), soft.sum = sum;
  return true;
}

__device__ void write_results(const launch &p, const workspace &r, int64_t n,
                              const history &h, const softmax &soft, int lane) {
  float *interest = p.interest + n * p.width;
  double factor = 1.0;
  if (p.softmax) factor = soft.sum > 0.0 ? 1.0 / soft.sum : 0.0;
  if (isnan(soft.sum)) factor = soft.sum; /* something was out of range */
  bool fills = p.softmax && p.padding_row && h.length == 0 && !isnan(soft.sum);
  int offset = 0;
  for (int i = 0; i < p.num_fields; i++) {
    const field &f = p.fields[i];
    for (int d = lane; d < f.dim; d += DIN_LANES) {
      float value = float(r.total[offset + d] * factor);
      if (fills) value = f.num_rows > 0 ? read_value(f, d) : NAN;
      interest[offset + d] = value;
    }
    offset += f.dim;
  }
  if (p.weight == nullptr) return;
  float *weight = p.weight + n * p.num_positions;
  for (int64_t t = lane; t < p.num_positions; t += DIN_LANES) {
    if (isnan(soft.sum)) {
      weight[t] = NAN;
    } else if (t >= h.length) {
      weight[t] = 0.0f;
    } else if (p.softmax) {
      weight[t] = exp2f((__ldcg(weight + t) - soft.highest) * LOG2E) * float(factor);
    }
  }
}

template <typename A>
__device__ void attend_item(const launch &p, const float *shared, const workspace &r,
                            unsigned item, din_lane<A> lane) {
  int64_t n = item / unsigned(p.chunks);
  int chunk = int(item % unsigned(p.chunks));
  history h = find_history(p, n);
  int64_t first = int64_t(chunk) * p.chunk_rows, last = h.length;
  if (p.chunks > 1 && last > first + p.chunk_rows) last = first + p.chunk_rows;
  softmax soft = {-INFINITY, 0.0};
  bool good = h.good;
  for (int d = lane.id; d < p.width; d += DIN_LANES) r.total[d] = 0.0;
  __syncwarp();
  if (first < last) {
    good = attend_rows<A>(p, shared, r, n, h, first, last, soft, lane) && good;
  } else if (chunk == 0) { /* an empty history: its candidate is checked all the same */
    good = read_query(p, n, r.query, lane.id) && good;
  }
  if (!__all_sync(ALL_LANES, good)) { /* the mark of it, which sums keep */
    soft.sum = double(NAN);
  }
  if (p.chunks > 1 && !join_chunks(p, r, n, chunk, soft, lane.id)) return;
  __syncwarp();
  write_results(p, r, n, h, soft, lane.id);
}

template <typename A>
__global__ void __launch_bounds__(A::WARPS *DIN_LANES) attend_kernel(const launch p) {
  DIN_SHARED_MEMORY(float4, memory);
  float *shared = reinterpret_cast<float *>(memory);
  const float4 *weights = reinterpret_cast<const float4 *>(p.weights);
  for (int i = int(threadIdx.x); i < p.shared_floats / 4; i += int(blockDim.x)) {
    memory[i] = weights[i];
  }
  __syncthreads();
  din_lane<A> lane = {int(threadIdx.x) % DIN_LANES};
  int warp = int(threadIdx.x) / DIN_LANES;
  workspace r = find_workspace(p, shared + p.shared_floats + warp * p.workspace_floats);
  /* the first of each is its own, so that few candidates are spread over all blocks */
  const unsigned warps = gridDim.x * blockDim.x / DIN_LANES;
  unsigned item = unsigned(warp) * gridDim.x + blockIdx.x;
  while (item < p.num_items) {
    attend_item<A>(p, shared, r, item, lane);
    __syncwarp();
    item = lane.id == 0 ? warps + atomicAdd(&p.work->next, 1u) : 0;
    item = __shfl_sync(ALL_LANES, item, 0);
  }
  if (lane.id == 0) { /* the last to go leaves the counter as it was */
    if (atomicAdd(&p.work->gone, 1u) == warps - 1) p.work->next = p.work->gone = 0;
  }
}

/* ---- packing ---- */

/* Tiles that run_chunk is compiled for: 5, or an even number. */
int allowed_tiles(int tiles, bool even) {
  return tiles == 5 && !even ? 5 : round_up(tiles, 2);
}

struct packer {
  std::vector<float> weights;
  int64_t place() const { return int64_t(weights.size()); }
  int64_t add(int64_t count) {
    int64_t at = place();
    weights.resize(size_t(at + (count + 3) / 4 * 4), 0.0f);
    return at;
  }
};

layer_place plan_layer(const din_layer &l, int depth, int most_tiles, bool even) {
  layer_place place = {};
  int tiles = (int(l.out) + 7) / 8;
  place.depth = depth, place.units = int(l.out);
  place.tiles = most_tiles < tiles ? most_tiles : allowed_tiles(tiles, even);
  place.chunks = (tiles + place.tiles - 1) / place.tiles;
  place.last_tiles = allowed_tiles(tiles - (place.chunks - 1) * place.tiles, even);
  place.columns = 8 * ((place.chunks - 1) * place.tiles + place.last_tiles);
  return place;
}

uint16_t nearest_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float nearest_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits = (bits + 0x1000) & 0xffffe000u;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

/* src [in, stride] -> the order of A, chunk after chunk */
template <typename A>
int64_t pack(packer &to, const layer_place &l, const float *src, int64_t in,
             int64_t stride, bool folds) {
  constexpr bool wide = sizeof(typename A::weight) == sizeof(float);
  int64_t chunk_size = din_count_weights(l.depth, l.tiles);
  int64_t values =
      chunk_size * (l.chunks - 1) + din_count_weights(l.depth, l.last_tiles);
  int64_t place = to.add(wide ? values : values / 2);
  float *floats = to.weights.data() + place;
  uint16_t *halves = reinterpret_cast<uint16_t *>(floats);
  for (int64_t k = 0; k < in; k++) {
    for (int64_t column = 0; column < l.units; column++) {
      int64_t chunk = column / (8 * l.tiles), tiles = l.tiles;
      if (chunk + 1 == l.chunks) tiles = l.last_tiles;
      int64_t at =
          chunk * chunk_size + A::place(k, column - chunk * 8 * l.tiles, tiles);
      float value = src[k * stride + column];
      if (!wide)
        halves[at] = nearest_bf16(value);
      else
        floats[at] = folds || !A::ROUNDS ? value : nearest_tf32(value);
    }
  }
  return place;
}

int64_t pack_vector(packer &to, const float *src, int64_t units, int64_t columns) {
  int64_t place = to.add(columns);
  memcpy(to.weights.data() + place, src, size_t(units) * sizeof *src);
  return place;
}

template <typename A>
int64_t pack_parameters(packer &to, const din_layer &l, int activation,
                        int64_t columns) {
  int64_t place = to.add(4 * columns);
  for (int64_t u = 0; u < l.out; u++) {
    for (int i = 0; i < 4; i++) {
      if (l.p[i]) to.weights[size_t(place + 4 * u + i)] = l.p[i][u];
    }
    if (activation == DIN_DICE) A::pack_dice(&to.weights[size_t(place + 4 * u)]);
  }
  return place;
}

/* Places of segments in the order in which shared memory is given to them. */
template <typename A>
std::vector<int64_t> pack_all(const din_attention *a, launch &p, packer &to,
                              int most_tiles) {
  const din_layer *layers = a->mlp.layers;
  std::vector<int64_t> ends;
  int depth = p.padded;
  for (int l = 0; l < p.num_layers; l++) {
    int most = l == 0 ? most_tiles : DIN_TILES;
    /* a layer's columns are the next one's depth, in whole steps of K */
    bool even = A::UNIT > 8 && l + 1 < p.num_layers;
    p.layers[l] = plan_layer(layers[l], depth, most, even);
    depth = p.layers[l].columns;
  }
  for (int l = 0; l < p.num_layers; l++) {
    layer_place &place = p.layers[l];
    place.bias = pack_vector(to, layers[l].bias, place.units, place.columns);
    place.parameters = pack_parameters<A>(to, layers[l], p.activation, place.columns);
  }
  const layer_place &last = p.layers[p.num_layers - 1];
  p.dot = pack_vector(to, a->mlp.dot, last.units, last.columns);
  ends.push_back(to.place());
  for (int l = 1; l < p.num_layers; l++) {
    int64_t stride = round_up(p.layers[l].units, 8);
    p.layers[l].weight =
        pack<A>(to, p.layers[l], layers[l].weight, layers[l].in, stride, false);
    ends.push_back(to.place());
  }
  layer_place &first = p.layers[0];
  int64_t stride = round_up(first.units, 8);
  first.weight = pack<A>(to, first, layers[0].weight, a->width, stride, A::FOLDS);
  if (a->weight_product) {
    p.product = pack<A>(to, first, a->weight_product, a->width, stride, A::FOLDS);
  }
  ends.push_back(to.place());
  p.query = to.add(a->width * first.columns);
  for (int64_t d = 0; d < a->width; d++) {
    memcpy(to.weights.data() + p.query + d * first.columns,
           a->weight_query + d * stride, size_t(first.units) * sizeof(float));
  }
  ends.push_back(to.place());
  for (int64_t i = 0; a->weight_outer && i < a->width; i++) {
    const float *src = a->weight_outer + i * a->width * stride;
    int64_t place = pack<A>(to, first, src, a->width, stride, A::FOLDS);
    if (i == 0) p.outer = place;
    if (i == 1) p.outer_size = place - p.outer;
  }
  return ends;
}

}  // namespace

/* ---- what the operator calls ---- */

typedef void (*starter)(const launch &p, unsigned blocks, unsigned threads,
                        size_t shared_bytes, cudaStream_t stream);

struct din_cuda_attention {
  launch model;
  const void *kernel;
  starter start;
  int warps, blocks; /* of a launch: warps per block, blocks that run at a time */
  size_t shared_bytes;
  float *weights;
  counter *counters;
  mutable std::atomic<unsigned> ring, captured;
};

namespace {

/* Warps per block, and how much of the weights goes to shared memory: the most warps
   that run at a time, then the most weights. */
const char *choose_launch(din_cuda_attention *c, const std::vector<int64_t> &ends,
                          int most_warps, int device, int limit) {
  int processors = 0;
  DIN_TRY(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  DIN_TRY(cudaFuncSetAttribute(c->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               limit));
  int best = 0; /* warps at a time on a multiprocessor */
  for (int64_t end : ends) {
    int most = 0, most_blocks = 0, most_warps_of_block = 0;
    for (int warps = 1; warps <= most_warps; warps++) {
      int64_t bytes = 4 * (end + int64_t(warps) * c->model.workspace_floats);
      int blocks = 0;
      if (bytes > limit) break;
      DIN_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &blocks, c->kernel, warps * DIN_LANES, size_t(bytes)));
      if (blocks * warps < most || blocks == 0) continue;
      most = blocks * warps, most_blocks = blocks, most_warps_of_block = warps;
    }
    /* a quarter of the warps is a fair price for weights near by */
    if (most == 0 || 4 * most < 3 * best) break;
    best = most > best ? most : best;
    c->warps = most_warps_of_block, c->blocks = most_blocks * processors;
    c->model.shared_floats = int(end);
    c->shared_bytes = 4 * (size_t(end) + size_t(c->warps) * c->model.workspace_floats);
  }
  if (best == 0)
    return DIN_TOO_WIDE(
        "expected layers that fit into a multiprocessor, got wider ones");
  return nullptr;
}

template <typename A>
void start(const launch &p, unsigned blocks, unsigned threads, size_t shared_bytes,
           cudaStream_t stream) {
  DIN_LAUNCH(attend_kernel<A>, blocks, threads, shared_bytes, stream, p);
}

template <typename A>
const char *create(din_cuda_attention *c, const din_attention *a) {
  launch &p = c->model;
  int widest = 0, device = 0, limit = 0;
  DIN_TRY(cudaGetDevice(&device));
  DIN_TRY(
      cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  c->kernel = reinterpret_cast<const void *>(&attend_kernel<A>);
  c->start = start<A>;
  p.padded = round_up(p.width, A::UNIT);
  /* all columns of the first layer at a time, or as many as fit */
  std::vector<int64_t> ends;
  packer weights;
  for (int most = DIN_TILES;; most -= 2) {
    weights = packer();
    ends = pack_all<A>(a, p, weights, most);
    const layer_place &first = p.layers[0];
    widest = p.padded, p.two_buffers = 0;
    for (int l = 0; l < p.num_layers; l++) {
      widest = p.layers[l].columns > widest ? p.layers[l].columns : widest;
      p.two_buffers |= p.layers[l].chunks > 1;
    }
    p.ld = round_up(widest, A::UNIT) + A::PAD;
    p.folds_once = 1;
    p.fold_floats = A::FOLDS ? p.padded * first.columns : 0;
    p.workspace_floats = count_workspace(p);
    if (A::FOLDS && (ends[0] + p.workspace_floats) * 4 > limit / 2) {
      p.folds_once = 0, p.fold_floats = p.padded * 8 * first.tiles;
      p.workspace_floats = count_workspace(p);
    }
    if ((ends[0] + p.workspace_floats) * 4 <= limit || most == 2) break;
  }
  const char *failed = choose_launch(c, ends, A::WARPS, device, limit);
  if (failed) return failed;
  size_t bytes = weights.weights.size() * sizeof(float);
  DIN_TRY(cudaMalloc(reinterpret_cast<void **>(&c->weights), bytes));
  DIN_TRY(
      cudaMemcpy(c->weights, weights.weights.data(), bytes, cudaMemcpyHostToDevice));
  p.weights = c->weights;
  bytes = (RING + CAPTURED) * sizeof(counter);
  DIN_TRY(cudaMalloc(reinterpret_cast<void **>(&c->counters), bytes));
  DIN_TRY(cudaMemset(c->counters, 0, bytes));
  DIN_TRY(cudaStreamSynchronize(nullptr)); /* the runtime's streams do not wait */
  return nullptr;
}

field make_field(const din_table &t, const int64_t *ids) {
  return field{t.rows, ids, t.num_rows, int(t.dim), t.is_half, 1, 0};
}

}  // namespace

extern "C" const char *din_cuda_attention_create(const din_attention *a,
                                                 din_precision precision,
                                                 din_cuda_attention **out) {
  if (a->num_fields > DIN_MAX_FIELDS || a->num_slots > DIN_MAX_FIELDS) {
    return DIN_TOO_WIDE("expected at most 24 fields of a sequence, got more");
  }
  if (a->mlp.num_layers > MAX_LAYERS) {
    return DIN_TOO_WIDE("expected at most 16 hidden layers, got more");
  }
  if (a->width > 4096)
    return DIN_TOO_WIDE("expected behaviors of at most 4096 values, got more");
  din_cuda_attention *c = new (std::nothrow) din_cuda_attention();
  if (c == nullptr) return "expected memory for the weights, got none";
  launch &p = c->model;
  p.width = int(a->width), p.num_layers = int(a->mlp.num_layers);
  p.num_fields = int(a->num_fields), p.num_slots = int(a->num_slots);
  for (int i = 0; i < p.num_slots; i++) p.slots[i] = int(a->slots[i]);
  p.has_product = a->weight_product != nullptr;
  p.has_outer = a->weight_outer != nullptr;
  p.activation = a->mlp.activation, p.output_activation = a->output_activation;
  p.softmax = a->softmax, p.attended = a->attended, p.padding_row = a->padding_row;
  p.epsilon = a->mlp.epsilon, p.scale = a->scale, p.dot_bias = a->mlp.dot_bias;
  const char *failed = nullptr;
  /* outer products make a weight of each candidate's own, which only fp32 folds */
  try {
    if (p.has_outer || precision == DIN_FP32) {
      failed = create<din_fp32>(c, a);
    } else if (precision == DIN_BF16) {
      failed = create<din_bf16>(c, a);
    } else if (precision == DIN_TF32) {
      failed = create<din_tf32<false>>(c, a);
    } else {
      failed = create<din_tf32<true>>(c, a);
    }
  } catch (const std::bad_alloc &) {
    failed = "expected memory for the weights, got none";
  }
  if (failed) {
    din_cuda_attention_destroy(c);
    return failed;
  }
  *out = c;
  return nullptr;
}

extern "C" void din_cuda_attention_destroy(din_cuda_attention *c) {
  if (c == nullptr) return;
  beside_captures relaxed;
  cudaFree(c->weights);
  cudaFree(c->counters);
  delete c;
}

extern "C" const char *din_cuda_attend(const din_cuda_attention *c,
                                       const din_cuda_batch *b, void *raw_stream) {
  cudaStream_t stream = static_cast<cudaStream_t>(raw_stream);
  launch p = c->model;
  if (b->num_candidates == 0) return nullptr;
  for (int i = 0, offset = 0; i < p.num_fields; i++) {
    field &f = p.fields[i];
    f = make_field(b->tables[i], b->ids[i]);
    f.step = f.dim % 4 == 0 && offset % 4 == 0 ? 4 : 1;
    f.inverse = (65536 + f.dim / f.step - 1) / (f.dim / f.step);
    offset += f.dim;
  }
  for (int i = 0; i < DIN_MAX_FIELDS; i++) {
    p.candidate_fields[i] = make_field(b->candidate_tables[i], b->candidate_ids[i]);
  }
  p.num_requests = b->num_requests;
  p.num_positions = b->num_positions, p.packed = b->packed;
  p.request_of_candidate = b->request_of_candidate, p.lengths = b->lengths;
  p.mask = b->mask, p.interest = b->interest, p.weight = b->weight;
  int64_t warps = int64_t(c->blocks) * c->warps;
  p.chunks = 1;
  int64_t bytes_of_chunk = (2 + p.width) * int64_t(sizeof(double));
  bool knows_longest = !b->packed || b->num_requests == 1;
  if (knows_longest && b->num_positions > 2 * CHUNK_ROWS &&
      b->num_candidates < 4 * warps) {
    int64_t most = MOST_SCRATCH / (b->num_candidates * bytes_of_chunk);
    int64_t chunks = (b->num_positions + CHUNK_ROWS - 1) / CHUNK_ROWS;
    chunks = chunks < most ? chunks : most;
    if (chunks > 1) {
      int64_t rows = (b->num_positions + chunks - 1) / chunks;
      rows = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS * CHUNK_ROWS;
      p.chunks = int((b->num_positions + rows - 1) / rows), p.chunk_rows = int(rows);
    }
  }
  int64_t items = b->num_candidates * p.chunks;
  if (items > INT32_MAX) return "expected fewer than 2^31 candidates, got more";
  p.num_items = unsigned(items);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  DIN_TRY(cudaStreamIsCapturing(stream, &capture));
  if (capture == cudaStreamCaptureStatusNone) {
    p.work = c->counters + c->ring.fetch_add(1) % RING;
  } else {
    unsigned taken = c->captured.fetch_add(1);
    if (taken >= CAPTURED) return "expected at most 4032 captured launches, got more";
    p.work = c->counters + RING + taken;
  }
  void *scratch = nullptr;
  if (p.chunks > 1) {
    size_t sums = size_t(items * bytes_of_chunk);
    size_t flags = size_t(b->num_candidates) * sizeof(unsigned);
    DIN_TRY(cudaMallocAsync(&scratch, sums + flags, stream));
    p.partials = static_cast<double *>(scratch);
    p.arrived = reinterpret_cast<unsigned *>(static_cast<char *>(scratch) + sums);
    DIN_TRY(cudaMemsetAsync(p.arrived, 0, flags, stream));
  }
  /* a block for each, as long as there are some: few candidates have a multiprocessor
     each, and not one for as many as it has warps */
  int64_t blocks = items < c->blocks ? items : c->blocks;
  c->start(p, unsigned(blocks), unsigned(c->warps * DIN_LANES), c->shared_bytes,
           stream);
  cudaError_t started = cudaGetLastError();
  if (scratch) {
    cudaError_t freed = cudaFreeAsync(scratch, stream);
    if (started == cudaSuccess) started = freed;
  }
  DIN_TRY(started);
  return nullptr;
}
