// Root-mean-square norm of rows, or of some heads of rows in place: one block a head.
#include "common.cuh"

struct RmsNormArgs {
  const float* x;
  const float* weight;
  float* out;
  uint32_t x_stride, out_stride, heads, dim;
  float eps;
};

KERNEL(rms_norm, RmsNormArgs, 256) {
  __shared__ float sums[32];
  uint32_t row = blockIdx.x / a.heads, head = blockIdx.x % a.heads;
  const float* x = a.x + (size_t)row * a.x_stride + head * a.dim;
  float* out = a.out + (size_t)row * a.out_stride + head * a.dim;
  float sum = 0.0f;
  for (uint32_t i = threadIdx.x; i < a.dim; i += blockDim.x) sum = __fmaf_rn(x[i], x[i], sum);
  float mean = block_sum(sum, sums) / (float)a.dim;
  float scale = 1.0f / sqrtf(mean + a.eps);
  for (uint32_t i = threadIdx.x; i < a.dim; i += blockDim.x) out[i] = x[i] * scale * a.weight[i];
}
