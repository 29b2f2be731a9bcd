#include "block.h"

#include <stddef.h>
#include <string.h>

extern const din_block_isa din_block_baseline;
#if defined(__x86_64__) && defined(__GNUC__)
#include "cpu.h"

extern const din_block_isa din_block_avx2, din_block_avx512;
#endif

const din_block_isa *din_block_isa_at(int32_t i) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (din_cpu_has(DIN_CPU_AVX512 | DIN_CPU_BMI2) && i-- == 0) return &din_block_avx512;
  /* every one of these has BMI2 */
  if (din_cpu_has(DIN_CPU_AVX2 | DIN_CPU_BMI2) && i-- == 0) {
    return &din_block_avx2;
  }
#endif
  return i == 0 ? &din_block_baseline : NULL;
}

const din_block_isa *din_find_block_isa(const char *name) {
  if (name == NULL || name[0] == '\0') return din_block_isa_at(0);
  const din_block_isa *isa;
  for (int32_t i = 0; (isa = din_block_isa_at(i)) != NULL; ++i) {
    if (strcmp(isa->name, name) == 0) return isa;
  }
  return NULL;
}
