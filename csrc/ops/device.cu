/* The way of a batch to the card and back, for din_infer/cuda.py, and the memory that
   the runtime asks for when tables stay on the host.

   A slot is what one run needs: pinned memory that the host fills, the same on the
   card, the same widened to int64, and results. The batch is one block of 32-bit words,
   integers first, so that one copy takes it. Copies have a stream of their own, so that
   they run beside the batch before. */
#include <stdint.h>
#include <string.h>

#include <map>
#include <mutex>
#include <new>

#include "cuda.h"
#include "launch.cuh"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif
#define THREADS 256

struct din_lane {
  int device;
  cudaStream_t compute, copy;
};

struct din_slot {
  din_lane *lane;
  int32_t *filled, *narrow; /* [words]: pinned, and on the card */
  int64_t *wide;            /* [words] */
  float *made, *results;    /* [floats]: on the card, and pinned */
  int64_t words, floats;
  cudaEvent_t copied, done;
};

extern "C" const char *din_cuda_fetch(void *to, const void *from, size_t bytes) {
  DIN_TRY(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
  return nullptr;
}

namespace {

/* Keeps what is freed for the next run, instead of giving it back at each wait. */
const char *keep_memory(int device) {
  cudaMemPool_t pool;
  uint64_t most = UINT64_MAX;
  DIN_TRY(cudaDeviceGetDefaultMemPool(&pool, device));
  DIN_TRY(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &most));
  return nullptr;
}

struct widening {
  const int32_t *from;
  int64_t *to;
  int64_t count;
};

__global__ void widen_kernel(const widening p) {
  int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.count;
       i += stride) {
    p.to[i] = p.from[i];
  }
}

void release(din_slot *r) {
  cudaFreeHost(r->filled);
  cudaFree(r->narrow);
  cudaFree(r->wide);
  cudaFree(r->made);
  cudaFreeHost(r->results);
  r->filled = r->narrow = nullptr;
  r->wide = nullptr;
  r->made = r->results = nullptr;
  r->words = r->floats = 0;
}

template <typename T>
const char *take(T **out, int64_t count, bool pinned) {
  void *memory = nullptr;
  size_t bytes = size_t(count) * sizeof(T);
  DIN_TRY(pinned ? cudaHostAlloc(&memory, bytes, cudaHostAllocDefault)
                 : cudaMalloc(&memory, bytes));
  *out = static_cast<T *>(memory);
  return nullptr;
}

const char *take_all(din_slot *r, int64_t words, int64_t floats) {
  const char *failed = take(&r->filled, words, true);
  if (!failed) failed = take(&r->narrow, words, false);
  if (!failed) failed = take(&r->wide, words, false);
  if (!failed) failed = take(&r->made, floats, false);
  if (!failed) failed = take(&r->results, floats, true);
  return failed;
}

}  // namespace

/* Without `own_stream` it computes on the default stream. */
EXPORT const char *din_lane_open(int device, int own_stream, din_lane **out) {
  din_lane *lane = new (std::nothrow) din_lane();
  if (lane == nullptr) return "out of memory";
  *out = lane;
  lane->device = device;
  DIN_TRY(cudaSetDevice(device));
  const char *failed = keep_memory(device);
  if (failed) return failed;
  if (own_stream) {
    DIN_TRY(cudaStreamCreateWithFlags(&lane->compute, cudaStreamNonBlocking));
  }
  DIN_TRY(cudaStreamCreateWithFlags(&lane->copy, cudaStreamNonBlocking));
  return nullptr;
}

EXPORT void *din_lane_stream(const din_lane *lane) { return lane->compute; }

EXPORT void din_lane_close(din_lane *lane) {
  if (lane == nullptr) return;
  beside_captures relaxed;
  cudaSetDevice(lane->device);
  if (lane->compute) cudaStreamDestroy(lane->compute);
  if (lane->copy) cudaStreamDestroy(lane->copy);
  delete lane;
}

EXPORT const char *din_slot_open(din_lane *lane, din_slot **out) {
  din_slot *r = new (std::nothrow) din_slot();
  if (r == nullptr) return "out of memory";
  beside_captures relaxed;
  *out = r;
  r->lane = lane;
  DIN_TRY(cudaSetDevice(lane->device));
  DIN_TRY(cudaEventCreateWithFlags(&r->copied, cudaEventDisableTiming));
  DIN_TRY(cudaEventCreateWithFlags(&r->done,
                                   cudaEventDisableTiming | cudaEventBlockingSync));
  return nullptr;
}

EXPORT void din_slot_close(din_slot *r) {
  if (r == nullptr) return;
  beside_captures relaxed;
  cudaSetDevice(r->lane->device);
  release(r);
  if (r->copied) cudaEventDestroy(r->copied);
  if (r->done) cudaEventDestroy(r->done);
  delete r;
}

/* Makes room for a batch; addresses change only where it was smaller. */
EXPORT const char *din_slot_reserve(din_slot *r, int64_t words, int64_t floats) {
  if (words <= r->words && floats <= r->floats) return nullptr;
  if (words < r->words) words = r->words;
  if (floats < r->floats) floats = r->floats;
  beside_captures relaxed;
  DIN_TRY(cudaSetDevice(r->lane->device));
  release(r);
  const char *failed = take_all(r, words, floats);
  if (failed) {
    release(r);
    return failed;
  }
  r->words = words, r->floats = floats;
  return nullptr;
}

/* Where the host writes, the card reads words and int64, writes results, the host reads
   them. */
EXPORT void din_slot_places(const din_slot *r, void *places[5]) {
  places[0] = r->filled, places[1] = r->narrow, places[2] = r->wide;
  places[3] = r->made, places[4] = r->results;
}

/* Begins to send `words`, of which the first `integers` are widened. */
EXPORT const char *din_slot_send(din_slot *r, int64_t words, int64_t integers) {
  din_lane *lane = r->lane;
  DIN_TRY(cudaSetDevice(lane->device));
  DIN_TRY(cudaMemcpyAsync(r->narrow, r->filled, size_t(words) * sizeof(int32_t),
                          cudaMemcpyHostToDevice, lane->copy));
  DIN_TRY(cudaEventRecord(r->copied, lane->copy));
  DIN_TRY(cudaStreamWaitEvent(lane->compute, r->copied, 0));
  int64_t blocks = (integers + THREADS - 1) / THREADS;
  if (blocks > 4096) blocks = 4096;
  widening p = {r->narrow, r->wide, integers};
  if (blocks > 0)
    DIN_LAUNCH(widen_kernel, unsigned(blocks), THREADS, 0, lane->compute, p);
  DIN_TRY(cudaGetLastError());
  return nullptr;
}

/* Begins to fetch results behind what the stream is doing. */
EXPORT const char *din_slot_fetch(din_slot *r, int64_t floats) {
  DIN_TRY(cudaSetDevice(r->lane->device));
  DIN_TRY(cudaMemcpyAsync(r->results, r->made, size_t(floats) * sizeof(float),
                          cudaMemcpyDeviceToHost, r->lane->compute));
  DIN_TRY(cudaEventRecord(r->done, r->lane->compute));
  return nullptr;
}

/* Waits until the results are here. */
EXPORT const char *din_slot_wait(din_slot *r) {
  beside_captures relaxed;
  DIN_TRY(cudaEventSynchronize(r->done));
  return nullptr;
}

/* out = the first lengths[row] ids of each row.
   @pre ids lie in [0, 2^31), lengths in [0, positions] */
EXPORT void din_pack_ids(const int64_t *ids, int64_t rows, int64_t positions,
                         const int64_t *lengths, int32_t *out) {
  for (int64_t row = 0; row < rows; row++, ids += positions) {
    for (int64_t t = 0; t < lengths[row]; t++) *out++ = int32_t(ids[t]);
  }
}

/* ---- memory for the runtime, tables on the host ---- */

namespace {

struct owned {
  bool on_host;
  cudaStream_t stream;
};

std::mutex guard;
std::map<void *, owned> &all_owned() {
  static std::map<void *, owned> *all = new std::map<void *, owned>();
  return *all;
}
thread_local din_lane *entered = nullptr;
thread_local size_t host_from = SIZE_MAX;

}  // namespace

/* This thread's allocations are for this lane; those of `bytes` and more are pinned
   memory of the host, which the card reads where it lies. */
EXPORT void din_lane_enter(din_lane *lane, size_t bytes) {
  entered = lane, host_from = bytes;
  cudaSetDevice(lane->device);
}

EXPORT void *din_memory_take(size_t bytes) {
  void *memory = nullptr;
  owned mine = {bytes >= host_from, entered ? entered->compute : nullptr};
  cudaError_t failed = mine.on_host ? cudaHostAlloc(&memory, bytes, cudaHostAllocMapped)
                                    : cudaMallocAsync(&memory, bytes, mine.stream);
  if (failed != cudaSuccess) {
    (void)cudaGetLastError(); /* as DIN_TRY */
    return nullptr;
  }
  std::lock_guard<std::mutex> lock(guard);
  all_owned()[memory] = mine;
  return memory;
}

EXPORT void din_memory_give(void *memory) {
  owned mine = {false, nullptr};
  {
    std::lock_guard<std::mutex> lock(guard);
    auto found = all_owned().find(memory);
    if (found == all_owned().end()) return;
    mine = found->second;
    all_owned().erase(found);
  }
  if (mine.on_host) {
    cudaFreeHost(memory);
  } else {
    cudaFreeAsync(memory, mine.stream);
  }
}

/* The runtime wants three functions; the pool keeps what it keeps. */
EXPORT void din_memory_tidy(void) {}
