// Copies of rows: those that are named, and parts that go beside one another.
#include "common.cuh"

struct CopyRowsArgs {
  const float* from;
  const uint32_t* indices;  // which row of `from` becomes row i; null: row i
  float* to;
  uint32_t from_stride, to_stride, width;
};

KERNEL(copy_rows, CopyRowsArgs, 256) {
  uint32_t row = a.indices ? a.indices[blockIdx.x] : blockIdx.x;
  const float* from = a.from + (size_t)row * a.from_stride;
  float* to = a.to + (size_t)blockIdx.x * a.to_stride;
  for (uint32_t i = threadIdx.x; i < a.width; i += blockDim.x) to[i] = from[i];
}
