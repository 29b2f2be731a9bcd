/* What every .cu file needs of CUDA's host side; tests/cuda/ emulates it. */
#ifndef DIN_OPS_LAUNCH_CUH_
#define DIN_OPS_LAUNCH_CUH_

#ifndef DIN_EMULATE
#include <cuda_runtime.h>
#define DIN_SHARED_MEMORY(type, name) extern __shared__ type name[]
#define DIN_LAUNCH(kernel, blocks, threads, shared_bytes, stream, argument) \
  kernel<<<blocks, threads, shared_bytes, stream>>>(argument)
#endif

/* Returns what a call failed by. The runtime keeps that error for the thread, where the
   next launch would find it: it is taken from there. */
#define DIN_TRY(call)                    \
  do {                                   \
    cudaError_t error_ = (call);         \
    if (error_ != cudaSuccess) {         \
      (void)cudaGetLastError();          \
      return cudaGetErrorString(error_); \
    }                                    \
  } while (0)

/* While another thread captures launches, the driver would refuse this one's calls, and
   end the capture. */
struct beside_captures {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  beside_captures() { cudaThreadExchangeStreamCaptureMode(&mode); }
  ~beside_captures() { cudaThreadExchangeStreamCaptureMode(&mode); }
};

#endif
