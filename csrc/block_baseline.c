/* What every machine has. */
#define ISA_SYMBOL din_block_baseline
#define ISA_NAME "baseline"
#include "block_kernels.h"
