/* EmbeddingBag on CUDA: a warp for each row of ids, a lane for every 32nd column. */
#include <math.h>

#include "cuda.h"
#include "launch.cuh"
#include "mma.cuh"

#define LANES 32
#define WARPS 4
#define PIECE 32 /* elements that are added in float, before double */

namespace {

struct launch {
  din_bag_batch batch;
  int packed;
};

__device__ float read_value(const din_table &t, int64_t at) {
  if (t.is_half) return from_half(static_cast<const uint16_t *>(t.rows)[at]);
  return static_cast<const float *>(t.rows)[at];
}

/* One column of one row; NaN where an id or the length is out of range. */
__device__ float pool(const din_bag_batch &b, const int64_t *ids, int64_t count,
                      int64_t column) {
  const din_table &t = b.table;
  double total = 0.0;
  float highest = -INFINITY;
  bool good = true;
  for (int64_t start = 0; start < count; start += PIECE) {
    int64_t stop = count < start + PIECE ? count : start + PIECE;
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t i = start; i < stop; i++) {
      int64_t id = ids[i];
      bool here = static_cast<uint64_t>(id) < static_cast<uint64_t>(t.num_rows);
      float value = here ? read_value(t, id * t.dim + column) : 0.0f;
      good = good && here;
      sum += value;
      highest = i == 0 || value > highest ? value : highest;
    }
    total += double(sum);
  }
  if (!good) return NAN;
  if (count == 0) return b.empty;
  if (b.pooling == DIN_MAX) return highest;
  return float(b.pooling == DIN_MEAN ? total / double(count) : total);
}

__global__ void __launch_bounds__(WARPS *LANES) bag_kernel(const launch p) {
  const din_bag_batch &b = p.batch;
  int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / LANES;
  int64_t stride = int64_t(gridDim.x) * WARPS;
  for (; row < b.num_rows; row += stride) {
    int64_t at = row * b.num_positions, count = b.num_positions;
    bool good = true;
    if (p.packed) {
      at = b.lengths[row], count = b.lengths[row + 1] - at;
      good = at >= 0 && count >= 0 && at + count <= b.num_positions;
    } else if (!b.attended) {
      count = b.lengths[row];
      good = count >= 0 && count <= b.num_positions;
    }
    for (int64_t d = threadIdx.x % LANES; d < b.table.dim; d += LANES) {
      b.pooled[row * b.table.dim + d] = good ? pool(b, b.ids + at, count, d) : NAN;
    }
  }
}

}  // namespace

extern "C" const char *din_cuda_bag(const din_bag_batch *batch, int packed,
                                    void *stream) {
  launch p = {*batch, packed};
  if (batch->num_rows == 0) return nullptr;
  int64_t blocks = (batch->num_rows + WARPS - 1) / WARPS;
  if (blocks > 1 << 20) blocks = 1 << 20;
  DIN_LAUNCH(bag_kernel, unsigned(blocks), WARPS * LANES, 0,
             static_cast<cudaStream_t>(stream), p);
  DIN_TRY(cudaGetLastError());
  return nullptr;
}
