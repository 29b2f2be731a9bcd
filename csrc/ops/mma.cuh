/* The few instructions that CUDA C++ has no name for. tests/cuda/ emulates them. */
#ifndef DIN_OPS_MMA_CUH_
#define DIN_OPS_MMA_CUH_

#include <stdint.h>

#ifndef DIN_EMULATE
#include <cuda_fp16.h>

/* the nearest tf32 number: 8 bits of exponent, 10 of mantissa, ties away from zero */
static __device__ __forceinline__ float to_tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

/* [16, 8] . [8, 8]: c0 has columns 2t, 2t + 1 of row g, c1 of row g + 8; x rows g and
   g + 8 of column t, then of column t + 4; y rows t and t + 4 of column g */
static __device__ __forceinline__ void mma_tf32(float *c0, float *c1,
                                                const float (&x)[4],
                                                const float (&y)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
      : "r"(__float_as_uint(x[0])), "r"(__float_as_uint(x[1])),
        "r"(__float_as_uint(x[2])), "r"(__float_as_uint(x[3])),
        "r"(__float_as_uint(y[0])), "r"(__float_as_uint(y[1])));
}

/* [16, 16] . [16, 8]: c as above; x pairs of columns 2t and 2t + 8 like mma_tf32's */
static __device__ __forceinline__ void mma_bf16(float *c0, float *c1,
                                                const uint32_t (&x)[4],
                                                const uint32_t (&y)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c0[0]), "+f"(c0[1]), "+f"(c1[0]), "+f"(c1[1])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
}

/* two floats to bf16, ties to even; `low` in the lower half */
static __device__ __forceinline__ uint32_t to_bf16x2(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

/* 2^x and 1 / x, to a few units in the last place. Denormal numbers are zero, before
   and after. */
static __device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
static __device__ __forceinline__ float fast_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

static __device__ __forceinline__ float fast_tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* The compiler cuts the store of a vector into those of its parts. */
static __device__ __forceinline__ void store_shared(float *to, float4 x) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
               :
               : "r"(unsigned(__cvta_generic_to_shared(to))), "f"(x.x), "f"(x.y),
                 "f"(x.z), "f"(x.w)
               : "memory");
}
static __device__ __forceinline__ void store_shared(float *to, float2 x) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};"
               :
               : "r"(unsigned(__cvta_generic_to_shared(to))), "f"(x.x), "f"(x.y)
               : "memory");
}

static __device__ __forceinline__ float from_half(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}
#endif

static __device__ __forceinline__ void store_shared(float *to, float x) { *to = x; }

/* the part of x that a tf32 number holds, the rest cut off */
static __device__ __forceinline__ float upper_tf32(float x) {
  return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
}

#endif
