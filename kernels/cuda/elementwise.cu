// Operations on single elements: the gate of a gated feed-forward layer.
#include "common.cuh"

struct SiluMulArgs {
  const float* gate_up;  // [rows][2][width]
  float* out;            // [rows][width]
  uint32_t rows, width;
};

KERNEL(silu_mul, SiluMulArgs, 256) {
  size_t index = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= (size_t)a.rows * a.width) return;
  size_t row = index / a.width, col = index % a.width;
  float gate = a.gate_up[row * 2 * a.width + col];
  float up = a.gate_up[row * 2 * a.width + a.width + col];
  a.out[index] = gate / (1.0f + exp_poly(-gate)) * up;
}
