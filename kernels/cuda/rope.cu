// Rotary position embedding of some heads of each row, in place: one block a row.
#include "common.cuh"

struct RopeArgs {
  float* x;
  const float* angles;  // [rows][2][half]: cosines, then sines
  uint32_t stride, heads, dim, half;
};

KERNEL(rope, RopeArgs, 256) {
  float* row = a.x + (size_t)blockIdx.x * a.stride;
  const float* cos = a.angles + (size_t)blockIdx.x * 2 * a.half;
  const float* sin = cos + a.half;
  for (uint32_t i = threadIdx.x; i < a.heads * a.half; i += blockDim.x) {
    uint32_t pair = i % a.half;
    float* head = row + i / a.half * a.dim;
    float x = head[pair], y = head[pair + a.half];
    head[pair] = x * cos[pair] - y * sin[pair];
    head[pair + a.half] = y * cos[pair] + x * sin[pair];
  }
}
