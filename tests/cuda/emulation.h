/* CUDA for a processor without any: what the .cu files use of it, run by fibers.

   Each thread of a block is a fiber that runs until it meets the others of its warp or
   block. So a missing barrier shows: with DIN_EMULATE_REVERSE=1 lanes run in reverse,
   and one of the two orders reads what is not there yet. A warp whose lanes wait at
   different places ends the process with both places.

   Device memory is this memory. Times mean nothing. x86-64 alone. Above 400 lines: one
   header is all that is included in CUDA's place. */
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct dim3 {
  unsigned x, y, z;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

struct fiber {
  void *stack_pointer;
  char *stack;
  dim3 thread;
  int lane, warp;
  bool done;
};

/* Where lanes meet: all must come to one place before any goes on. */
struct meeting {
  int arrived, expected;
  unsigned round;
  const char *place;
};

struct slot { /* what a lane shows to its warp */
  float x[4], y[2];
  uint32_t u[4], v[2];
};

struct block {
  std::vector<fiber> fibers;
  std::vector<meeting> warps;
  meeting all;
  std::vector<slot> slots;
  std::function<void()> body;
  char *shared;
  dim3 index, threads, blocks;
  int current, left;
  void *main_stack_pointer;
};

inline block *now;

/* For tests: blocks of the last launch, and the most bytes asked for at a time. */
inline unsigned last_blocks;
inline size_t most_bytes;
extern "C" __attribute__((used, visibility("default"))) inline unsigned
din_emulated_blocks() {
  return last_blocks;
}
extern "C" __attribute__((used, visibility("default"))) inline size_t
din_emulated_bytes() {
  size_t most = most_bytes;
  return most_bytes = 0, most;
}

extern "C" void din_emulation_switch(void **from, void *to);
asm(R"(
.text
.weak din_emulation_switch
.hidden din_emulation_switch
.type din_emulation_switch, @function
din_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

inline int next_fiber() {
  static const bool reverse = getenv("DIN_EMULATE_REVERSE") != nullptr;
  int count = int(now->fibers.size()), step = reverse ? count - 1 : 1;
  int at = now->current;
  do at = (at + step) % count;
  while (now->fibers[size_t(at)].done);
  return at;
}

inline void yield() {
  fiber &me = now->fibers[size_t(now->current)];
  int next = next_fiber();
  if (next == now->current) return;
  now->current = next;
  din_emulation_switch(&me.stack_pointer, now->fibers[size_t(next)].stack_pointer);
}

inline void meet(meeting &m, const char *place) {
  if (m.arrived == 0) m.place = place;
  if (m.place != place) {
    fprintf(stderr, "lanes wait at `%s` and at `%s`\n", m.place, place);
    abort();
  }
  unsigned round = m.round;
  if (++m.arrived == m.expected) {
    m.arrived = 0, m.round++;
    return;
  }
  long turns = 0;
  while (m.round == round) {
    if (++turns > 10000000) {
      fprintf(stderr, "lanes wait at `%s` for others that never come\n", place);
      abort();
    }
    yield();
  }
}

inline meeting &my_warp() {
  return now->warps[size_t(now->fibers[size_t(now->current)].warp)];
}
inline slot *my_slots() {
  return &now->slots[size_t(now->fibers[size_t(now->current)].warp) * 32];
}
inline int my_lane() { return now->fibers[size_t(now->current)].lane; }

inline void run_fiber() {
  now->body();
  fiber &me = now->fibers[size_t(now->current)];
  me.done = true;
  void *unused, *to = now->main_stack_pointer;
  if (--now->left > 0) {
    now->current = next_fiber();
    to = now->fibers[size_t(now->current)].stack_pointer;
  }
  din_emulation_switch(&unused, to);
  abort();
}

inline void run(unsigned blocks, unsigned threads, size_t shared_bytes,
                const std::function<void()> &body) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> guard(one_at_a_time);
  last_blocks = blocks;
  const size_t stack_bytes = 256 * 1024;
  for (unsigned b = 0; b < blocks; b++) {
    block here = {};
    now = &here;
    here.body = body, here.index = {b, 0, 0};
    here.threads = {threads, 1, 1}, here.blocks = {blocks, 1, 1};
    here.fibers.resize(threads), here.slots.resize(threads);
    here.warps.assign(threads / 32, {0, 32, 0, ""});
    here.all = {0, int(threads), 0, ""};
    here.left = int(threads);
    void *shared = aligned_alloc(128, (shared_bytes + 127) / 128 * 128 + 128);
    memset(shared, 0xff, shared_bytes); /* NaN: what is not written is not read */
    here.shared = static_cast<char *>(shared);
    for (unsigned t = 0; t < threads; t++) {
      fiber &f = here.fibers[t];
      f.thread = {t, 0, 0}, f.lane = int(t % 32), f.warp = int(t / 32);
      f.stack = static_cast<char *>(malloc(stack_bytes));
      uintptr_t top =
          (reinterpret_cast<uintptr_t>(f.stack) + stack_bytes) & ~uintptr_t(63);
      void **frame = reinterpret_cast<void **>(top) - 8;
      memset(frame, 0, 8 * sizeof *frame);
      frame[6] = reinterpret_cast<void *>(&run_fiber); /* behind six registers */
      f.stack_pointer = frame;
    }
    here.current = 0;
    din_emulation_switch(&here.main_stack_pointer, here.fibers[0].stack_pointer);
    for (fiber &f : here.fibers) free(f.stack);
    free(shared);
  }
  now = nullptr;
}

inline float from_bf16(uint32_t bits) {
  uint32_t wide = bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}

}  // namespace emulation

#define threadIdx (emulation::now->fibers[size_t(emulation::now->current)].thread)
#define blockIdx (emulation::now->index)
#define blockDim (emulation::now->threads)
#define gridDim (emulation::now->blocks)
#define DIN_SHARED_MEMORY(type, name) \
  type *name = reinterpret_cast<type *>(emulation::now->shared)
#define DIN_LAUNCH(kernel, blocks, threads, shared_bytes, stream, argument) \
  ((void)(stream),                                                          \
   emulation::run(blocks, threads, shared_bytes, [copy = argument] { kernel(copy); }))

#define DIN_HERE_TEXT(line) __FILE__ ":" #line
#define DIN_HERE(line) DIN_HERE_TEXT(line)
#define __syncwarp() emulation::meet(emulation::my_warp(), DIN_HERE(__LINE__))
#define __syncthreads() emulation::meet(emulation::now->all, DIN_HERE(__LINE__))

template <typename T>
T emulated_shuffle(T x, int from, bool exclusive, const char *place) {
  using namespace emulation;
  slot *slots = my_slots();
  memcpy(slots[my_lane()].u, &x, sizeof x);
  meet(my_warp(), place);
  memcpy(&x, slots[exclusive ? my_lane() ^ from : from].u, sizeof x);
  meet(my_warp(), place);
  return x;
}
#define __shfl_xor_sync(mask, x, bit) emulated_shuffle(x, bit, true, DIN_HERE(__LINE__))
#define __shfl_sync(mask, x, from) emulated_shuffle(x, from, false, DIN_HERE(__LINE__))
inline bool emulated_all(bool x, const char *place) {
  bool all = true;
  for (int i = 0; i < 32; i++) all = emulated_shuffle(int(x), i, false, place) && all;
  return all;
}
#define __all_sync(mask, x) emulated_all(x, DIN_HERE(__LINE__))

inline unsigned atomicAdd(unsigned *at, unsigned more) {
  unsigned before = *at;
  *at += more;
  return before;
}
#define __threadfence() ((void)0)
template <typename T>
T __ldcg(const T *at) {
  return *at;
}
inline float __fdividef(float x, float y) { return x / y; }
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* ---- instructions: csrc/ops/mma.cuh ---- */

inline float to_tf32(float x) {
  return __uint_as_float((__float_as_uint(x) + 0x1000) & 0xffffe000u);
}

inline uint32_t to_bf16x2(float low, float high) {
  uint32_t a = __float_as_uint(low), b = __float_as_uint(high);
  a = (a + 0x7fff + (a >> 16 & 1)) >> 16;
  b = (b + 0x7fff + (b >> 16 & 1)) >> 16;
  return a | b << 16;
}

inline float without_denormals(float x) {
  return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}
inline float fast_exp2(float x) {
  return without_denormals(exp2f(without_denormals(x)));
}
inline float fast_inverse(float x) {
  return without_denormals(1.0f / without_denormals(x));
}
inline float fast_tanh(float x) { return tanhf(x); }

template <typename V>
void store_shared(float *to, const V &x) {
  const char *first = emulation::now->shared, *at = reinterpret_cast<char *>(to);
  if (at < first || (at - first) % long(sizeof x)) {
    fprintf(stderr, "a store of %zu bytes at an odd place\n", sizeof x);
    abort();
  }
  memcpy(to, &x, sizeof x);
}

inline float from_half(uint16_t bits) {
  _Float16 half;
  memcpy(&half, &bits, sizeof half);
  return float(half);
}

/* c += product of the warp's fragments; tf32 reads 19 bits of each */
inline void emulated_mma(float *c0, float *c1, bool halves, const char *place) {
  using namespace emulation;
  meet(my_warp(), place);
  const slot *slots = my_slots();
  int lane = my_lane(), g = lane / 4, t = lane % 4;
  for (int row = 0; row < 2; row++) {
    for (int column = 0; column < 2; column++) {
      float &c = (row ? c1 : c0)[column];
      const slot *from = slots + (2 * t + column) * 4;
      for (int k = 0; k < (halves ? 16 : 8); k++) {
        int peer = halves ? k % 8 / 2 : k % 4;
        int part = halves ? k / 8 : k / 4;
        const slot &a = slots[4 * g + peer], &b = from[peer];
        if (halves) {
          int shift = k % 2 * 16;
          c += from_bf16(a.u[row + 2 * part] >> shift & 0xffff) *
               from_bf16(b.v[part] >> shift & 0xffff);
        } else {
          c += __uint_as_float(__float_as_uint(a.x[row + 2 * part]) & 0xffffe000u) *
               __uint_as_float(__float_as_uint(b.y[part]) & 0xffffe000u);
        }
      }
    }
  }
  meet(my_warp(), place);
}

inline void mma_tf32(float *c0, float *c1, const float (&x)[4], const float (&y)[2]) {
  emulation::slot &mine = emulation::my_slots()[emulation::my_lane()];
  memcpy(mine.x, x, sizeof x), memcpy(mine.y, y, sizeof y);
  emulated_mma(c0, c1, false, "mma_tf32");
}

inline void mma_bf16(float *c0, float *c1, const uint32_t (&x)[4],
                     const uint32_t (&y)[2]) {
  emulation::slot &mine = emulation::my_slots()[emulation::my_lane()];
  memcpy(mine.u, x, sizeof x), memcpy(mine.v, y, sizeof y);
  emulated_mma(c0, c1, true, "mma_bf16");
}

/* ---- the host's side ---- */

typedef int cudaError_t;
typedef void *cudaStream_t, *cudaEvent_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorNotReady = 600 };
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMultiProcessorCount
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDefault };
enum { cudaStreamNonBlocking = 1, cudaHostAllocMapped = 2, cudaHostAllocDefault = 0 };
enum { cudaEventDisableTiming = 2, cudaEventBlockingSync = 1 };
typedef int cudaStreamCaptureStatus;
enum { cudaStreamCaptureStatusNone };

inline const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "emulated failure";
}
inline thread_local cudaError_t emulated_last_error = cudaSuccess;
inline cudaError_t cudaGetLastError() {
  cudaError_t last = emulated_last_error;
  return emulated_last_error = cudaSuccess, last;
}
inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int) {
  const char *limit = getenv("DIN_EMULATE_SHARED");
  *value = limit ? atoi(limit) : 232448;
  if (which == cudaDevAttrMultiProcessorCount) *value = 2;
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void *, int, int) { return cudaSuccess; }
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks,
                                                                 const void *, int,
                                                                 size_t) {
  return *blocks = 1, cudaSuccess;
}
inline cudaError_t cudaMalloc(void **out, size_t bytes) {
  emulation::most_bytes = std::max(emulation::most_bytes, bytes);
  *out = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
  if (*out == nullptr) return emulated_last_error = cudaErrorMemoryAllocation;
  return memset(*out, 0xff, bytes), cudaSuccess;
}
typedef int cudaStreamCaptureMode;
enum { cudaStreamCaptureModeGlobal = 0, cudaStreamCaptureModeRelaxed = 2 };
inline thread_local cudaStreamCaptureMode emulated_mode = cudaStreamCaptureModeGlobal;
inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  return std::swap(*mode, emulated_mode), cudaSuccess;
}
/* With DIN_EMULATE_CAPTURE=1 another thread captures, which this call would end. */
inline cudaError_t cudaFree(void *memory) {
  if (emulated_mode != cudaStreamCaptureModeRelaxed && getenv("DIN_EMULATE_CAPTURE")) {
    fprintf(stderr, "cudaFree while another thread captures\n");
    abort();
  }
  return free(memory), cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t) {
  return cudaMalloc(out, bytes);
}
inline cudaError_t cudaFreeAsync(void *memory, cudaStream_t) {
  return free(memory), cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
  return cudaMalloc(out, bytes);
}
inline cudaError_t cudaFreeHost(void *memory) { return free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, int) {
  return memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int,
                                   cudaStream_t) {
  return memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  return memset(to, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) {
  return memset(to, value, bytes), cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *out) {
  return *out = cudaStreamCaptureStatusNone, cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  static char one;
  return *out = &one, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
  static char one;
  return *out = &one, cudaSuccess;
}
typedef void *cudaMemPool_t;
enum { cudaMemPoolAttrReleaseThreshold };
inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int) {
  return *out = nullptr, cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void *) {
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
