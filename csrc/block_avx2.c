#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi2")
#endif
#define DIN_VECTOR_BYTES 32
#define ISA_SYMBOL din_block_avx2
#define ISA_NAME "avx2"
#include "block_kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int nothing_here; /* another architecture */
#endif
