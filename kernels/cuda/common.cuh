// What all kernels share: how a kernel is declared, arithmetic with one rounding, warps and tensor cores.
//
// Kernels are compiled without contraction (-fmad=false) and say where a fused multiply-add is meant, so that the same
// source gives the same sums wherever it runs. With PINION_EMULATION a host compiler takes the place of nvcc.
#pragma once
#include <stdint.h>

#ifdef PINION_EMULATION
#include "emulation.h"
#else
#include <cuda_fp16.h>
// A kernel takes one structure, `a`; THREADS is the most that a block may have.
#define KERNEL(name, Args, THREADS) \
  extern "C" __global__ void __launch_bounds__(THREADS) name(const __grid_constant__ Args a)
#define SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#define DEVICE __device__ __forceinline__
DEVICE float half_bits_to_float(uint32_t bits) { return __half2float(__ushort_as_half((unsigned short)bits)); }
#endif

constexpr unsigned ALL_LANES = 0xffffffffu;

DEVICE float negative_infinity() { return __uint_as_float(0xff800000u); }
DEVICE float bf16_to_float(uint32_t bits) { return __uint_as_float(bits << 16); }

// Rounds to the nearest even; NaN stays NaN.
DEVICE uint32_t float_to_bf16(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

DEVICE uint32_t pack_bf16(float low, float high) { return float_to_bf16(low) | float_to_bf16(high) << 16; }

// `e^x` as the CPU computes it: within 2 units in the last place, constant beyond -87.3 and 88.3.
DEVICE float exp_poly(float x) {
  const float round = 12582912.0f;
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  float shifted = __fmaf_rn(x, 1.44269504088896341f, round);
  float n = shifted - round;
  float r = __fmaf_rn(n, -0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.9875691e-4f;
  p = __fmaf_rn(p, r, 1.3981999e-3f);
  p = __fmaf_rn(p, r, 8.333452e-3f);
  p = __fmaf_rn(p, r, 4.1665796e-2f);
  p = __fmaf_rn(p, r, 1.6666665e-1f);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r * r, r) + 1.0f;
  return p * __uint_as_float((__float_as_uint(shifted) + 127u) << 23);
}

DEVICE float tanh_poly(float x) {
  float e = exp_poly(2.0f * (x < 0.0f ? -x : x));
  float t = 1.0f - 2.0f / (e + 1.0f);
  return x < 0.0f ? -t : t;
}

DEVICE float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(ALL_LANES, x, mask);
  return x;
}

DEVICE float warp_max(float x) {
  for (int mask = 16; mask > 0; mask /= 2) {
    float other = __shfl_xor_sync(ALL_LANES, x, mask);
    x = other > x ? other : x;
  }
  return x;
}

// The sum over a block of at most 32 warps, in an order that depends on the number of warps only.
DEVICE float block_sum(float x, float* shared) {
  x = warp_sum(x);
  unsigned warps = blockDim.x / 32;
  if (warps == 1) return x;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = shared[0];
  for (unsigned warp = 1; warp < warps; warp++) sum += shared[warp];
  __syncthreads();
  return sum;
}

#ifndef PINION_EMULATION
// c[16][8] += a[16][16] b[16][8]. Lane 4g + t holds of `a` the rows g and g + 8, columns 2t, 2t + 1 and those 8 further;
// of `b` column g, the same rows; of `c` rows g and g + 8, columns 2t and 2t + 1.
DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c[16][8] = a[16][32] b[32][8] in 8-bit integers: of `a` columns 4t.. 4t + 3 of rows g and g + 8, and those 16 further.
DEVICE void mma_s8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}

// The same with 16 columns of `a`.
DEVICE void mma_s8_half(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a0), "r"(a1), "r"(b0), "r"(0));
}
#endif
