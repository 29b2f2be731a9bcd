/* Vectors of W floats for one instruction set: what the kernels are written in.

   Include with DIN_AVX512, DIN_AVX2 or DIN_BASELINE defined. The arithmetic operators
   of GNU C work on `vf`; contraction is off in C11 mode, so that a fused multiply-add
   is one only where v_fma says so. */
#ifndef DIN_OPS_VEC_H_
#define DIN_OPS_VEC_H_

#include <stdint.h>
#include <string.h>

#define DIN_INLINE static inline __attribute__((always_inline))

#if defined(DIN_AVX512)
#include <immintrin.h>
#define W 16
#define REGISTERS 32
typedef __m512 vf;
DIN_INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
DIN_INLINE void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
DIN_INLINE vf v_set(float x) { return _mm512_set1_ps(x); }
DIN_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
DIN_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
/* a NaN in the second operand stays one */
DIN_INLINE vf v_min(vf limit, vf x) { return _mm512_min_ps(limit, x); }
DIN_INLINE vf v_max(vf limit, vf x) { return _mm512_max_ps(limit, x); }
DIN_INLINE vf v_reciprocal(vf x) {
  vf r = _mm512_rcp14_ps(x);
  return r * v_fnma(x, r, v_set(2.0f));
}
DIN_INLINE float v_sum(vf x) { return _mm512_reduce_add_ps(x); }
DIN_INLINE vf v_load_half(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

#elif defined(DIN_AVX2)
#include <immintrin.h>
#define W 8
#define REGISTERS 16
typedef __m256 vf;
DIN_INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
DIN_INLINE void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
DIN_INLINE vf v_set(float x) { return _mm256_set1_ps(x); }
DIN_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
DIN_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
DIN_INLINE vf v_min(vf limit, vf x) { return _mm256_min_ps(limit, x); }
DIN_INLINE vf v_max(vf limit, vf x) { return _mm256_max_ps(limit, x); }
DIN_INLINE vf v_reciprocal(vf x) { return v_set(1.0f) / x; }
DIN_INLINE float v_sum(vf x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
DIN_INLINE vf v_load_half(const uint16_t *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

#elif defined(DIN_BASELINE)
#define W 4
typedef float vf __attribute__((vector_size(16)));
DIN_INLINE vf v_load(const float *p) {
  vf x;
  memcpy(&x, p, sizeof x);
  return x;
}
DIN_INLINE void v_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
DIN_INLINE vf v_set(float x) { return (vf){x, x, x, x}; }
DIN_INLINE float v_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
DIN_INLINE vf v_reciprocal(vf x) { return 1.0f / x; }
#if defined(__aarch64__)
#include <arm_neon.h>
#define REGISTERS 32
DIN_INLINE vf v_fma(vf a, vf b, vf c) {
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
DIN_INLINE vf v_fnma(vf a, vf b, vf c) {
  return (vf)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
DIN_INLINE vf v_min(vf limit, vf x) {
  return (vf)vminq_f32((float32x4_t)limit, (float32x4_t)x);
}
DIN_INLINE vf v_max(vf limit, vf x) {
  return (vf)vmaxq_f32((float32x4_t)limit, (float32x4_t)x);
}
DIN_INLINE vf v_load_half(const uint16_t *p) {
  return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
#else
#define REGISTERS 16
DIN_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
DIN_INLINE vf v_fnma(vf a, vf b, vf c) { return c - a * b; }
typedef int32_t vm __attribute__((vector_size(16)));
DIN_INLINE vf v_choose(vm mask, vf a, vf b) {
  return (vf)(((vm)a & mask) | ((vm)b & ~mask));
}
DIN_INLINE vf v_min(vf limit, vf x) { return v_choose(x > limit, limit, x); }
DIN_INLINE vf v_max(vf limit, vf x) { return v_choose(x < limit, limit, x); }
#define DIN_NO_HALF_LOAD
#endif
#else
#error "define DIN_AVX512, DIN_AVX2 or DIN_BASELINE"
#endif

typedef int32_t vi __attribute__((vector_size(W * 4)));

/* IEEE half to float, every value exact. */
DIN_INLINE float half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu, bits;
  float magnitude;
  if (rest >= 0x7c00u) { /* infinity, NaN */
    bits = 0x7f800000u | (rest << 13);
  } else if (rest >= 0x0400u) {
    bits = (rest << 13) + 0x38000000u;
  } else { /* subnormal: rest * 2^-24 */
    magnitude = (float)rest * 5.9604644775390625e-8f;
    memcpy(&bits, &magnitude, sizeof bits);
  }
  bits |= sign;
  memcpy(&magnitude, &bits, sizeof bits);
  return magnitude;
}

#ifdef DIN_NO_HALF_LOAD
DIN_INLINE vf v_load_half(const uint16_t *p) {
  return (vf){half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]),
              half_to_float(p[3])};
}
#endif

/* y, or NaN where x is not finite: what limits its input may not hide that a sum before
   it overflowed. */
DIN_INLINE vf v_if_finite(vf x, vf y) { return v_fma(x, v_set(0.0f), y); }

#define LOG2E 1.44269504088896341f

/* Several vectors go through a polynomial step by step, side by side: a processor's
   queue of waiting operations is too short to overlap one whole chain with the next. */
#define LANES 4
#define EACH_LANE _Pragma("GCC unroll 4") for (int i = 0; i < n; i++)

/* x[i] = 2^x[i] for |x| <= 126, held there beyond; n <= LANES. 2^x = 2^k * 2^f with k
   the nearest integer; 2^f by the polynomial of degree 6 with the least largest
   relative error on [-1/2, 1/2] (1.9e-9; 8e-8 with the rounding of float32). */
DIN_INLINE void v_exp2(const int n, vf *x) {
  const float c[] = {1.5345812425948680e-4f,
                     1.3399930903688073e-3f,
                     9.6184890717267990e-3f,
                     5.5503286421298980e-2f,
                     2.4022646248340607e-1f,
                     6.9314718246459960e-1f,
                     1.0f};
  const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to integers */
  vf shifted[LANES], p[LANES];
  EACH_LANE x[i] = v_min(v_set(126.0f), x[i]);
  EACH_LANE x[i] = v_max(v_set(-126.0f), x[i]);
  EACH_LANE shifted[i] = x[i] + magic;
  EACH_LANE x[i] = x[i] - (shifted[i] - magic);
  EACH_LANE p[i] = v_fma(v_set(c[0]), x[i], v_set(c[1]));
#pragma GCC unroll 8
  for (int k = 2; k < 7; k++) {
    vf next = v_set(c[k]);
    EACH_LANE p[i] = v_fma(p[i], x[i], next);
  }
  /* k goes into the exponent */
  EACH_LANE x[i] = (vf)((vi)p[i] + ((vi)shifted[i] << 23));
}

/* x[i] = sigmoid of what times -log2(e) is x[i] */
DIN_INLINE void v_sigmoid(const int n, vf *x) {
  v_exp2(n, x);
  EACH_LANE x[i] = x[i] + v_set(1.0f);
  EACH_LANE x[i] = v_reciprocal(x[i]);
}

#endif
