#if defined(__x86_64__)
#include "../target.h"
DIN_RARE_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#define DIN_AVX512
#define ISA_SYMBOL din_isa_avx512
#define ISA_NAME "avx512"
#include "kernels.h"
DIN_END_RARE_TARGET
#else
typedef int nothing_here; /* another architecture */
#endif
