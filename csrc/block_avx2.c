#if defined(__x86_64__) && defined(__GNUC__)
#include "target.h"
DIN_TARGET("avx2,bmi2")
#define DIN_VECTOR_BYTES 32
#define ISA_SYMBOL din_block_avx2
#define ISA_NAME "avx2"
#include "block_kernels.h"
DIN_END_TARGET
#else
typedef int nothing_here; /* another architecture */
#endif
