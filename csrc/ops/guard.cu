/* Guard on CUDA: NaN for a candidate whose request or whose ids are out of range, and
   for all of them where the last request has none. Every block looks at all requests,
   so that no block waits for another. */
#include <math.h>

#include "cuda.h"
#include "launch.cuh"

#define THREADS 256
#define MOST_BLOCKS 64

namespace {

__device__ bool is_outside(int64_t value, int64_t stop) {
  return static_cast<uint64_t>(value) >= static_cast<uint64_t>(stop);
}

__global__ void __launch_bounds__(THREADS) guard_kernel(const din_cuda_guard g) {
  DIN_SHARED_MEMORY(int, found);
  if (threadIdx.x == 0) found[0] = g.num_requests < 0;
  __syncthreads();
  for (int64_t n = threadIdx.x; n < g.num_candidates; n += THREADS) {
    if (g.num_requests >= 0 && g.request_of_candidate[n] == g.num_requests - 1) {
      found[0] = 1;
    }
  }
  __syncthreads();
  int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
  int64_t stride = int64_t(gridDim.x) * THREADS;
  for (; n < g.num_candidates; n += stride) {
    bool good = found[0] != 0;
    int64_t request = 0;
    if (g.num_requests >= 0) {
      request = g.request_of_candidate[n];
      good = good && !is_outside(request, g.num_requests);
    }
    for (int i = 0; good && i < g.num_fields; i++) {
      int64_t id = g.ids[i][i < g.num_user_fields ? request : n];
      good = !is_outside(id, g.rows[i]);
    }
    g.penalty[n] = good ? 0.0f : NAN;
  }
}

}  // namespace

extern "C" const char *din_cuda_check(const din_cuda_guard *guard, void *stream) {
  int64_t blocks = (guard->num_candidates + THREADS - 1) / THREADS;
  if (blocks == 0) return nullptr;
  if (blocks > MOST_BLOCKS) blocks = MOST_BLOCKS;
  DIN_LAUNCH(guard_kernel, unsigned(blocks), THREADS, sizeof(int),
             static_cast<cudaStream_t>(stream), *guard);
  DIN_TRY(cudaGetLastError());
  return nullptr;
}
