/* What every machine has. */
#define ISA_SYMBOL din_block_baseline
#define ISA_NAME "baseline"
#define LANES_OF_ISA 1
#include "block_kernels.h"
