/* The AVX-512 intrinsics that csrc/ops/vec.h uses, in plain C: included in front of
   isa_avx512.c and isa_amx.c, so that their tile shapes and packing are tested on
   machines without the instructions. The reciprocal is as wrong as it may be. */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float din_16f __attribute__((vector_size(64)));
#define EMULATE __attribute__((noinline, unused)) static

EMULATE din_16f din_load(const float *p) {
  din_16f x;
  memcpy(&x, p, sizeof x);
  return x;
}
EMULATE void din_store(float *p, din_16f x) { memcpy(p, &x, sizeof x); }
EMULATE din_16f din_set(float v) {
  din_16f x;
  for (int i = 0; i < 16; i++) x[i] = v;
  return x;
}
EMULATE din_16f din_fma(din_16f a, din_16f b, din_16f c) {
  for (int i = 0; i < 16; i++) c[i] = fmaf(a[i], b[i], c[i]);
  return c;
}
EMULATE din_16f din_fnma(din_16f a, din_16f b, din_16f c) { return din_fma(-a, b, c); }
/* like the instructions: the second operand when either is NaN */
EMULATE din_16f din_min(din_16f a, din_16f b) {
  for (int i = 0; i < 16; i++) b[i] = a[i] < b[i] ? a[i] : b[i];
  return b;
}
EMULATE din_16f din_max(din_16f a, din_16f b) {
  for (int i = 0; i < 16; i++) b[i] = a[i] > b[i] ? a[i] : b[i];
  return b;
}
EMULATE din_16f din_rcp14(din_16f x) {
  for (int i = 0; i < 16; i++) x[i] = 1.0f / x[i] * (i % 2 ? 1.00006f : 0.99994f);
  return x;
}
EMULATE float din_reduce(din_16f x) {
  for (int width = 8; width; width /= 2) {
    for (int i = 0; i < width; i++) x[i] += x[i + width];
  }
  return x[0];
}
EMULATE float din_half(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023;
  float x = exponent ? ldexpf((float)(fraction + 1024), exponent - 25)
                     : ldexpf((float)fraction, -24);
  if (exponent == 31) x = fraction ? NAN : INFINITY;
  return half & 0x8000 ? -x : x;
}
EMULATE din_16f din_halves(__m256i halves) {
  uint16_t from[16];
  din_16f x;
  memcpy(from, &halves, sizeof from);
  for (int i = 0; i < 16; i++) x[i] = din_half(from[i]);
  return x;
}
#undef EMULATE

#define __m512 din_16f
#define _mm512_loadu_ps din_load
#define _mm512_storeu_ps din_store
#define _mm512_set1_ps din_set
#define _mm512_fmadd_ps din_fma
#define _mm512_fnmadd_ps din_fnma
#define _mm512_min_ps din_min
#define _mm512_max_ps din_max
#define _mm512_rcp14_ps din_rcp14
#define _mm512_reduce_add_ps din_reduce
#define _mm512_cvtph_ps din_halves
/* vec.h loads halves through this; it needs AVX alone */
#define _mm256_loadu_si256(p) din_load_halves(p)
static inline __m256i din_load_halves(const void *p) {
  __m256i x;
  memcpy(&x, p, sizeof x);
  return x;
}
