// CUDA's execution model on a host processor, for tests: every thread of a block is a fiber.
//
// Blocks run one after the other. Fibers run until they meet a barrier or a warp operation; in which order they are
// resumed is chosen by each launch, so a result that depends on it shows. A barrier that not all threads reach ends the
// program with a message. Shared memory keeps what the block before left there.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define DEVICE static inline
#define __shared__ static
#define __restrict__ __restrict

struct Dim3 {
  unsigned x, y, z;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct float4 {
  float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {
extern Dim3 thread, block, block_dim, grid_dim;
extern unsigned char* dynamic_shared;
void block_barrier();
// Gives `value` to the other lanes of the warp and returns those of all lanes.
const uint64_t (*exchange(const uint64_t* value, int words))[8];
unsigned lane();
}  // namespace emulation

#define threadIdx emulation::thread
#define blockIdx emulation::block
#define blockDim emulation::block_dim
#define gridDim emulation::grid_dim
#define KERNEL(name, Args, THREADS)                                            \
  static void name##_body(const Args& a);                                      \
  extern "C" __attribute__((visibility("default"))) void name(const void* a) { \
    name##_body(*(const Args*)a);                                              \
  }                                                                            \
  static void name##_body(const Args& a)
#define SHARED_BYTES(name) unsigned char* name = emulation::dynamic_shared

static inline void __syncthreads() { emulation::block_barrier(); }
static inline void __syncwarp() {
  uint64_t nothing = 0;
  emulation::exchange(&nothing, 1);
}
static inline float __uint_as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float rsqrt_exact(float x) { return 1.0f / sqrtf(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }
static inline float half_bits_to_float(uint32_t bits) {
  uint16_t half = (uint16_t)bits;
#if defined(__FLT16_MAX__)
  _Float16 x;
#else
  __fp16 x;
#endif
  memcpy(&x, &half, 2);
  return (float)x;
}

template <typename T>
static inline T emulated_shuffle(T value, unsigned from) {
  uint64_t word = 0;
  memcpy(&word, &value, sizeof(T));
  word = emulation::exchange(&word, 1)[from][0];
  memcpy(&value, &word, sizeof(T));
  return value;
}
template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated_shuffle(value, emulation::lane() ^ (unsigned)mask);
}
template <typename T>
static inline T __shfl_sync(unsigned, T value, int from) {
  return emulated_shuffle(value, (unsigned)from % 32);
}
template <typename T>
static inline T atomicAdd(T* place, T value) {
  T before = *place;
  *place = before + value;
  return before;
}
template <typename T>
static inline T __ldcs(const T* place) {
  return *place;
}

static inline float emulated_bf16(uint32_t word, int half) { return __uint_as_float(half ? word & 0xffff0000u : word << 16); }

// Fragments as the documentation of the instruction has them: lane 4g + t.
static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  uint64_t mine[3] = {a[0] | (uint64_t)a[1] << 32, a[2] | (uint64_t)a[3] << 32, b0 | (uint64_t)b1 << 32};
  const uint64_t(*all)[8] = emulation::exchange(mine, 3);
  unsigned g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; i++) {
    unsigned row = g + i / 2 * 8, col = 2 * t + i % 2;
    for (unsigned k = 0; k < 16; k++) {
      // Column k of `a` lies in register row / 8 + 2 * (k / 8) of lane 4 * (row % 8) + k % 8 / 2.
      uint64_t left = all[row % 8 * 4 + k % 8 / 2][k / 8];
      uint64_t right = all[col * 4 + k % 8 / 2][2];
      float x = emulated_bf16((uint32_t)(left >> (row / 8 * 32)), k % 2);
      float y = emulated_bf16((uint32_t)(right >> (k / 8 * 32)), k % 2);
      c[i] = fmaf(x, y, c[i]);
    }
  }
}

static inline int emulated_s8(uint64_t word, unsigned byte) { return (int8_t)(word >> (byte * 8)); }

static inline void mma_s8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  uint64_t mine[3] = {a[0] | (uint64_t)a[1] << 32, a[2] | (uint64_t)a[3] << 32, b0 | (uint64_t)b1 << 32};
  const uint64_t(*all)[8] = emulation::exchange(mine, 3);
  unsigned g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; i++) {
    unsigned row = g + i / 2 * 8, col = 2 * t + i % 2;
    c[i] = 0;
    for (unsigned k = 0; k < 32; k++) {
      uint64_t left = all[row % 8 * 4 + k % 16 / 4][k / 16];
      uint64_t right = all[col * 4 + k % 16 / 4][2];
      c[i] += emulated_s8(left, row / 8 * 4 + k % 4) * emulated_s8(right, k / 16 * 4 + k % 4);
    }
  }
}

static inline void mma_s8_half(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  uint64_t mine[2] = {a0 | (uint64_t)a1 << 32, b0};
  const uint64_t(*all)[8] = emulation::exchange(mine, 2);
  unsigned g = emulation::lane() / 4, t = emulation::lane() % 4;
  for (int i = 0; i < 4; i++) {
    unsigned row = g + i / 2 * 8, col = 2 * t + i % 2;
    c[i] = 0;
    for (unsigned k = 0; k < 16; k++) {
      uint64_t left = all[row % 8 * 4 + k / 4][0], right = all[col * 4 + k / 4][1];
      c[i] += emulated_s8(left, row / 8 * 4 + k % 4) * emulated_s8(right, k % 4);
    }
  }
}
