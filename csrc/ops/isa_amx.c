#if defined(__x86_64__)
#ifndef DIN_EMULATE
#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target(                                                       \
        "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16")
#endif
#endif
#define DIN_AVX512
#define DIN_AMX
#define ISA_SYMBOL din_isa_amx
#define ISA_NAME "amx"
#include "kernels.h"
#if defined(__clang__) && !defined(DIN_EMULATE)
#pragma clang attribute pop
#endif
#else
typedef int nothing_here; /* another architecture */
#endif
