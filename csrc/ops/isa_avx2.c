#if defined(__x86_64__)
#include "../target.h"
DIN_TARGET("avx2,fma,f16c")
#define DIN_AVX2
#define ISA_SYMBOL din_isa_avx2
#define ISA_NAME "avx2"
#include "kernels.h"
DIN_END_TARGET
#else
typedef int nothing_here; /* another architecture */
#endif
