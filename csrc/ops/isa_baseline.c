/* What every x86-64 (SSE2) and arm64 (NEON) machine has. */
#define DIN_BASELINE
#define ISA_SYMBOL din_isa_baseline
#define ISA_NAME "baseline"
#include "kernels.h"
