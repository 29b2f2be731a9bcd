#if defined(__x86_64__) && defined(__GNUC__)
#include "target.h"
DIN_RARE_TARGET("avx512f,avx512bw,avx512dq,avx512vl,bmi2")
#define DIN_VECTOR_BYTES 64
#define ISA_SYMBOL din_block_avx512
#define ISA_NAME "avx512"
#include "block_kernels.h"
DIN_END_RARE_TARGET
#else
typedef int nothing_here; /* another architecture */
#endif
