// Activations times bf16 weights on tensor cores.
//
// An activation is the sum of two bf16, 16 bits of its 24, as it is on processors with tiles. The columns are cut into
// eight chunks; each chunk is summed on its own, over ascending columns, and the chunks are added in ascending order. So
// an element is the same whatever the number of rows, and whichever of the kernels computes it.
#include "common.cuh"

struct SplitRowsArgs {
  const float* x;  // [n][cols]
  uint4* out;      // [tiles of 8 rows][steps of 16 columns][lanes]
  uint32_t n, cols, steps;
};

// Writes activations as the right sides of products: high halves of two pairs of columns, then their low halves.
KERNEL(split_rows, SplitRowsArgs, 256) {
  uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= a.steps * 32) return;
  uint32_t lane = index % 32, row = blockIdx.y * 8 + lane / 4, col = index / 32 * 16 + lane % 4 * 2;
  float high[4], low[4];
  for (uint32_t i = 0; i < 4; i++) {
    uint32_t at = col + i / 2 * 8 + i % 2;
    float x = row < a.n && at < a.cols ? a.x[(size_t)row * a.cols + at] : 0.0f;
    high[i] = bf16_to_float(float_to_bf16(x));
    low[i] = x - high[i];
  }
  uint4 words = make_uint4(pack_bf16(high[0], high[1]), pack_bf16(high[2], high[3]), pack_bf16(low[0], low[1]),
                           pack_bf16(low[2], low[3]));
  a.out[(size_t)blockIdx.y * a.steps * 32 + index] = words;
}

struct LinearBf16Args {
  const uint4* x;           // what split_rows wrote
  const uint32_t* weights;  // [groups of 16 rows][pairs of columns][16]
  const float* bias;        // may be null
  float* out;               // [n][rows]
  uint32_t n, rows, steps, add;
};

constexpr uint32_t BF16_CHUNKS = 8;

DEVICE void finish_linear(const float* bias, float* out, uint32_t row, float sum, uint32_t add) {
  if (bias) sum += bias[row];
  *out = add ? *out + sum : sum;
}

// The left side of one step: lane 4g + t holds rows 2g and 2g + 1 of pairs t and t + 4.
DEVICE void load_left(uint32_t (&left)[4], const uint32_t* weights, uint32_t lane) {
  const uint2* words = (const uint2*)(weights + lane % 4 * 16 + lane / 4 * 2);
  uint2 first = __ldcs(words), second = __ldcs(words + 32);
  left[0] = first.x, left[1] = first.y, left[2] = second.x, left[3] = second.y;
}

DEVICE void multiply_split(float (&sums)[4], const uint32_t (&left)[4], uint4 right) {
  mma_bf16(sums, left, right.x, right.y);
  mma_bf16(sums, left, right.z, right.w);
}

// A block is one group of 16 rows times TILES tiles of 8 tokens; a warp is one chunk of the columns.
template <int TILES>
DEVICE void linear_bf16(const LinearBf16Args& a, float* parts) {
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_tile = blockIdx.y * TILES;
  uint32_t tiles = (a.n + 7) / 8 - first_tile, len = (a.steps + BF16_CHUNKS - 1) / BF16_CHUNKS;
  uint32_t start = warp * len, end = start + len < a.steps ? start + len : a.steps;
  const uint32_t* weights = a.weights + (size_t)blockIdx.x * a.steps * 128;
  const uint4* x = a.x + (size_t)first_tile * a.steps * 32 + lane;
  float sums[TILES][4] = {};
#pragma unroll 4
  for (uint32_t step = start; step < end; step++) {
    uint32_t left[4];
    load_left(left, weights + (size_t)step * 128, lane);
#pragma unroll
    for (uint32_t tile = 0; tile < TILES; tile++)
      if (tile < tiles) multiply_split(sums[tile], left, x[((size_t)tile * a.steps + step) * 32]);
  }
  constexpr uint32_t WIDTH = TILES * 8;
  for (uint32_t tile = 0; tile < TILES; tile++)
    for (uint32_t i = 0; i < 4; i++) {
      uint32_t row = lane / 4 * 2 + i / 2, token = tile * 8 + lane % 4 * 2 + i % 2;
      parts[(warp * WIDTH + token) * 16 + row] = sums[tile][i];
    }
  __syncthreads();
  for (uint32_t index = threadIdx.x; index < WIDTH * 16; index += blockDim.x) {
    uint32_t row = blockIdx.x * 16 + index % 16, token = first_tile * 8 + index / 16;
    if (row >= a.rows || token >= a.n) continue;
    float sum = parts[index];
    for (uint32_t chunk = 1; chunk < BF16_CHUNKS; chunk++) sum += parts[chunk * WIDTH * 16 + index];
    finish_linear(a.bias, a.out + (size_t)token * a.rows + row, row, sum, a.add);
  }
}

KERNEL(linear_bf16_8, LinearBf16Args, 256) {
  __shared__ float parts[BF16_CHUNKS * 8 * 16];
  linear_bf16<1>(a, parts);
}
KERNEL(linear_bf16_16, LinearBf16Args, 256) {
  __shared__ float parts[BF16_CHUNKS * 16 * 16];
  linear_bf16<2>(a, parts);
}
KERNEL(linear_bf16_32, LinearBf16Args, 256) {
  __shared__ float parts[BF16_CHUNKS * 32 * 16];
  linear_bf16<4>(a, parts);
}

constexpr uint32_t TILED_ROWS = 128, TILED_TILES = 8, TILED_STEPS = 2;

// Many tokens: a block is 128 rows times 64 tokens, and its warps share the activations of two steps in shared memory.
// A warp is one group of 16 rows; it sums one chunk after the other.
KERNEL(linear_bf16_tiled, LinearBf16Args, 256) {
  __shared__ uint4 shared[2][TILED_STEPS * TILED_TILES * 32];
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_tile = blockIdx.y * TILED_TILES;
  uint32_t tiles = (a.n + 7) / 8 - first_tile, len = (a.steps + BF16_CHUNKS - 1) / BF16_CHUNKS;
  uint32_t groups = (a.rows + 15) / 16, group = blockIdx.x * (TILED_ROWS / 16) + warp;
  const uint32_t* weights = a.weights + (size_t)(group < groups ? group : 0) * a.steps * 128;
  const uint4* x = a.x + (size_t)first_tile * a.steps * 32;
  float totals[TILED_TILES][4] = {}, sums[TILED_TILES][4] = {};
  constexpr uint32_t WORDS = TILED_STEPS * TILED_TILES * 32;
  uint32_t rounds = (a.steps + TILED_STEPS - 1) / TILED_STEPS;
  uint4 next[WORDS / 256];
  uint32_t left_next[TILED_STEPS][4];
  auto fetch = [&](uint32_t round) {
    for (uint32_t i = 0; i < WORDS / 256; i++) {
      uint32_t word = i * 256 + threadIdx.x, tile = word / 32 % TILED_TILES;
      uint32_t step = round * TILED_STEPS + word / (32 * TILED_TILES);
      bool inside = tile < tiles && step < a.steps;
      next[i] = inside ? x[((size_t)tile * a.steps + step) * 32 + word % 32] : make_uint4(0, 0, 0, 0);
    }
    for (uint32_t s = 0; s < TILED_STEPS; s++) {
      uint32_t step = round * TILED_STEPS + s;
      load_left(left_next[s], weights + (size_t)(step < a.steps ? step : 0) * 128, lane);
    }
  };
  fetch(0);
  uint32_t in_chunk = 0, chunk = 0;
  for (uint32_t round = 0; round < rounds; round++) {
    uint4* stage = shared[round % 2];
    uint32_t left[TILED_STEPS][4];
    for (uint32_t i = 0; i < WORDS / 256; i++) stage[i * 256 + threadIdx.x] = next[i];
    for (uint32_t s = 0; s < TILED_STEPS; s++)
      for (uint32_t i = 0; i < 4; i++) left[s][i] = left_next[s][i];
    // Two stages: whoever is ahead writes the one that nobody reads any more.
    __syncthreads();
    if (round + 1 < rounds) fetch(round + 1);
#pragma unroll
    for (uint32_t s = 0; s < TILED_STEPS; s++) {
      if (round * TILED_STEPS + s >= a.steps) break;
#pragma unroll
      for (uint32_t tile = 0; tile < TILED_TILES; tile++)
        multiply_split(sums[tile], left[s], stage[(s * TILED_TILES + tile) * 32 + lane]);
      if (++in_chunk < len && round * TILED_STEPS + s + 1 < a.steps) continue;
#pragma unroll
      for (uint32_t tile = 0; tile < TILED_TILES; tile++)
        for (uint32_t i = 0; i < 4; i++) {
          totals[tile][i] = chunk == 0 ? sums[tile][i] : totals[tile][i] + sums[tile][i];
          sums[tile][i] = 0.0f;
        }
      in_chunk = 0, chunk++;
    }
  }
  for (uint32_t tile = 0; tile < TILED_TILES; tile++)
    for (uint32_t i = 0; i < 4; i++) {
      uint32_t row = group * 16 + lane / 4 * 2 + i / 2, token = (first_tile + tile) * 8 + lane % 4 * 2 + i % 2;
      if (row < a.rows && token < a.n)
        finish_linear(a.bias, a.out + (size_t)token * a.rows + row, row, totals[tile][i], a.add);
    }
}
