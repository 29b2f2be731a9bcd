#include "block.h"

#include <stddef.h>

extern const din_block_isa din_block_baseline;
#if defined(__x86_64__) && defined(__GNUC__)
extern const din_block_isa din_block_avx2, din_block_avx512;
#endif

const din_block_isa *din_block_isa_at(int32_t i) {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && i-- == 0) {
    return &din_block_avx512;
  }
  /* every one of these has BMI2 */
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && i-- == 0) {
    return &din_block_avx2;
  }
#endif
  return i == 0 ? &din_block_baseline : NULL;
}
