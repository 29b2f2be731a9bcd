#include "isa.h"

#include <string.h>

extern const din_isa din_isa_baseline;
#if defined(__x86_64__)
extern const din_isa din_isa_avx2, din_isa_avx512;
#endif

const din_isa *din_find_isa(const char *name) {
  const din_isa *found[3]; /* best first */
  int count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found[count++] = &din_isa_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    found[count++] = &din_isa_avx2;
  }
#endif
  found[count++] = &din_isa_baseline;
  if (name == NULL || name[0] == '\0') return found[0];
  for (int i = 0; i < count; i++) {
    if (strcmp(found[i]->name, name) == 0) return found[i];
  }
  return NULL;
}

int64_t din_attention_scratch(const din_attention *a, int64_t width) {
  int64_t units = din_round_up(a->layers[0].out, width);
  return DIN_GROUP * (a->padded_width + units) + units * a->width +
         DIN_BLOCK * a->padded_width + 2 * DIN_TILE * a->max_padded_units +
         din_round_up(DIN_TILE, width) + 3 * a->padded_width;
}

int64_t din_bag_scratch(int64_t dim, int64_t width) {
  return 3 * din_round_up(dim, width);
}
