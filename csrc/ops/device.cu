/* The way of a batch to the card and back, for din_infer/cuda.py, and memory that the
   runtime asks for. */
#include <string.h>

#include "cuda.h"
#include "launch.cuh"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

extern "C" const char *din_cuda_fetch(void *to, const void *from, size_t bytes) {
  DIN_TRY(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
  return nullptr;
}
