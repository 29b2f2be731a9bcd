/*
 * What an x86-64 processor has, where the system saves the registers that go with it.
 *
 * __builtin_cpu_supports would say so, but for the runtime library of zig's clang, in
 * which it finds nothing on any processor.
 */
#ifndef DIN_CPU_H
#define DIN_CPU_H

#include <cpuid.h>
#include <stdatomic.h>

enum {
  DIN_CPU_KNOWN = 1,
  DIN_CPU_FMA = 2,
  DIN_CPU_AVX2 = 4,
  DIN_CPU_BMI2 = 8,
  DIN_CPU_AVX512 = 16, /* F, BW, DQ and VL */
};

static inline unsigned din_ask_cpu(void) {
  const unsigned xsave = 1u << 27, fma = 1u << 12, avx2 = 1u << 5, bmi2 = 1u << 8;
  const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  unsigned a, b, c, d, first, state, high;
  if (!__get_cpuid(1, &a, &b, &first, &d) || !(first & xsave)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0));
#if defined(__APPLE__)
  state |= 0xE0; /* macOS gives a thread AVX-512's registers when it first uses them */
#endif
  unsigned found = b & bmi2 ? DIN_CPU_BMI2 : 0;
  if ((state & 0x06) != 0x06) return found;
  if (first & fma) found |= DIN_CPU_FMA;
  if (b & avx2) found |= DIN_CPU_AVX2;
  if ((state & 0xE0) == 0xE0 && (b & avx512) == avx512) found |= DIN_CPU_AVX512;
  return found;
}

/* Whether all of these features are there. Asked once: it takes a virtual machine long. */
static inline int din_cpu_has(unsigned features) {
  static atomic_uint found;
  unsigned known = atomic_load_explicit(&found, memory_order_relaxed);
  if (known == 0) {
    known = din_ask_cpu() | DIN_CPU_KNOWN;
    atomic_store_explicit(&found, known, memory_order_relaxed);
  }
  return (known & features) == features;
}

#endif /* DIN_CPU_H */
