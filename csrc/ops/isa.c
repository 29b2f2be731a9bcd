#define _DEFAULT_SOURCE /* syscall */
#include "isa.h"

#include <string.h>

#if defined(__x86_64__)
#include "../cpu.h"
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const din_isa din_isa_baseline;
#if defined(__x86_64__)
extern const din_isa din_isa_avx2, din_isa_avx512, din_isa_amx;
#endif

const din_isa *din_find_isa(const char *name) {
  const din_isa *found[4]; /* best first */
  int count = 0;
#if defined(__x86_64__)
#ifdef DIN_EMULATE
  found[count++] = &din_isa_avx512;
#endif
  if (din_cpu_has(DIN_CPU_AVX512)) found[count++] = &din_isa_avx512;
  /* every one of these has F16C too, which some compilers cannot ask for */
  if (din_cpu_has(DIN_CPU_AVX2 | DIN_CPU_FMA)) found[count++] = &din_isa_avx2;
#endif
  found[count++] = &din_isa_baseline;
  if (name == NULL || name[0] == '\0') return found[0];
  for (int i = 0; i < count; i++) {
    if (strcmp(found[i]->name, name) == 0) return found[i];
  }
  return NULL;
}

#if defined(DIN_EMULATE)
const din_isa *din_find_half_isa(void) { return &din_isa_amx; }
#elif defined(__x86_64__) && defined(__linux__)
/* Tiles are 8 KiB of state per thread: Linux gives them to a process that asks. */
const din_isa *din_find_half_isa(void) {
  const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
  const long request_permission = 0x1023, tile_data = 18;
  unsigned a, b, c, d;
  const din_isa *best = din_find_isa(NULL);
  if (best != &din_isa_avx512 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return NULL;
  if (!(d & amx_bf16) || !(d & amx_tile)) return NULL;
  if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return NULL;
  return &din_isa_amx;
}
#else
const din_isa *din_find_half_isa(void) { return NULL; }
#endif

int64_t din_attention_scratch(const din_attention *a, int64_t width) {
  int64_t units = din_round_up(a->mlp.layers[0].out, width), half = 0;
  if (a->mlp.layers[0].half_weight) {
    int64_t d = din_round_up(a->padded_width, 32);
    int64_t widest = din_round_up(a->mlp.max_padded_units, 32);
    half = (units * d + (DIN_TILE + 16) * (d > widest ? d : widest)) / 2;
  }
  return DIN_GROUP * (a->padded_width + units) + units * a->width +
         DIN_OPS_BLOCK * a->padded_width +
         2 * (DIN_TILE + 16) * a->mlp.max_padded_units + din_round_up(DIN_TILE, width) +
         2 * a->padded_width + half;
}

int64_t din_bag_scratch(int64_t dim, int64_t width) {
  return 3 * din_round_up(dim, width);
}

int64_t din_tower_scratch(const din_tower *t, int64_t width) {
  return DIN_TILE * t->width + 2 * (DIN_TILE + 16) * t->mlp.max_padded_units +
         din_round_up(DIN_TILE, width) + width;
}
