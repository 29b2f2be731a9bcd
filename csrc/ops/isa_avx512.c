#if defined(__x86_64__)
#ifndef DIN_EMULATE
#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#endif
#define DIN_AVX512
#define ISA_SYMBOL din_isa_avx512
#define ISA_NAME "avx512"
#include "kernels.h"
#if defined(__clang__) && !defined(DIN_EMULATE)
#pragma clang attribute pop
#endif
#else
typedef int nothing_here; /* another architecture */
#endif
