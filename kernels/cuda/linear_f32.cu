// Activations times f32 weights in panels of 64 rows, column by column.
#include "common.cuh"

struct LinearF32Args {
  const float* x;        // [n][cols]
  const float* weights;  // [panels][cols][64]
  const float* bias;     // may be null
  float* out;            // [n][rows]
  uint32_t n, rows, cols, add;
};

constexpr uint32_t F32_TOKENS = 8, F32_PARTS = 4;

// A block is one panel times eight rows of x; four groups of threads share the columns.
KERNEL(linear_f32, LinearF32Args, 256) {
  __shared__ float parts[F32_PARTS][F32_TOKENS][64];
  uint32_t lane = threadIdx.x % 64, part = threadIdx.x / 64, first = blockIdx.y * F32_TOKENS;
  uint32_t len = (a.cols + F32_PARTS - 1) / F32_PARTS;
  uint32_t start = part * len, end = start + len < a.cols ? start + len : a.cols;
  const float* weights = a.weights + (size_t)blockIdx.x * a.cols * 64 + lane;
  float sums[F32_TOKENS] = {};
  for (uint32_t k = start; k < end; k++) {
    float w = weights[(size_t)k * 64];
    for (uint32_t i = 0; i < F32_TOKENS; i++)
      if (first + i < a.n) sums[i] = __fmaf_rn(a.x[(size_t)(first + i) * a.cols + k], w, sums[i]);
  }
  for (uint32_t i = 0; i < F32_TOKENS; i++) parts[part][i][lane] = sums[i];
  __syncthreads();
  uint32_t row = blockIdx.x * 64 + lane;
  if (row >= a.rows) return;
  for (uint32_t i = part; i < F32_TOKENS && first + i < a.n; i += F32_PARTS) {
    float sum = parts[0][i][lane];
    for (uint32_t p = 1; p < F32_PARTS; p++) sum += parts[p][i][lane];
    if (a.bias) sum += a.bias[row];
    float* out = a.out + (size_t)(first + i) * a.rows + row;
    *out = a.add ? *out + sum : sum;
  }
}
