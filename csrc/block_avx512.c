#if defined(__x86_64__) && defined(__GNUC__)
#ifndef DIN_EMULATE
#if defined(__clang__)
#pragma clang attribute push(                                           \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi2")
#endif
#endif
#define DIN_VECTOR_BYTES 64
#define ISA_SYMBOL din_block_avx512
#define ISA_NAME "avx512"
#include "block_kernels.h"
#if defined(__clang__) && !defined(DIN_EMULATE)
#pragma clang attribute pop
#endif
#else
typedef int nothing_here; /* another architecture */
#endif
