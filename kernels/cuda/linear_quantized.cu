// Activations of 8 bits times quantized weights in tiles of 16 rows, on tensor cores.
//
// Integers are summed exactly, and added in f32 with the fused multiply-adds of the CPU. The spans of a row are cut into
// eight chunks that are summed on their own and added in ascending order, whatever the number of activation rows.
#include "common.cuh"

struct QuantizeRowsArgs {
  const float* x;  // [n][cols]
  uint8_t* codes;  // [n][cols]
  float* scales;   // [n][num_scales]
  int* sums;       // [n][cols / 32]; may be null
  uint32_t cols, num_scales, grain;
};

// A block is one row; a warp quantizes whole grains.
KERNEL(quantize_rows, QuantizeRowsArgs, 256) {
  uint32_t lane = threadIdx.x % 32, per_lane = a.grain / 32;
  const float* x = a.x + (size_t)blockIdx.x * a.cols;
  uint8_t* codes = a.codes + (size_t)blockIdx.x * a.cols;
  for (uint32_t grain = threadIdx.x / 32; grain < a.num_scales; grain += blockDim.x / 32) {
    uint32_t first = grain * a.grain + lane * per_lane;
    uint32_t largest = 0;
    for (uint32_t i = first; i < first + per_lane && i < a.cols; i++) {
      uint32_t bits = __float_as_uint(x[i]) & 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      uint32_t other = __shfl_xor_sync(ALL_LANES, largest, mask);
      largest = other > largest ? other : largest;
    }
    bool usable = largest < 0x7f800000u, small = largest < (27u << 23);  // below 2^-100
    float most = __uint_as_float(largest), inverse = 127.0f / most;
    int sum = 0;
    for (uint32_t i = first; i < first + per_lane && i < a.cols; i++) {
      uint32_t code = usable && !small ? __float_as_uint(x[i] * inverse + 12582912.0f) & 0xffu : 0;
      codes[i] = (uint8_t)code;
      sum += (int8_t)code;
    }
    if (a.sums) {
      // As many lanes as 32 columns have.
      for (uint32_t mask = 1; mask < 32 / per_lane; mask *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, (int)mask);
      if (lane * per_lane % 32 == 0 && first < a.cols) a.sums[(size_t)blockIdx.x * (a.cols / 32) + first / 32] = sum;
    }
    if (lane == 0) {
      float scale = !usable ? __uint_as_float(0x7fc00000u) : small ? 0.0f : most / 127.0f;
      a.scales[(size_t)blockIdx.x * a.num_scales + grain] = scale;
    }
  }
}

struct LinearQuantizedArgs {
  const uint8_t* codes;
  const float* scales;
  const int* sums;
  const uint8_t* weights;  // tiles
  const float* bias;       // may be null
  float* out;              // [n][rows]
  uint32_t n, rows, cols, num_scales, add;
};

enum Family { PLAIN, MINS, HALVES };
constexpr uint32_t QUANTIZED_CHUNKS = 8;

// Subtracts OFFSET from each byte; bytes are less than 128.
template <uint32_t OFFSET>
DEVICE uint32_t less_offset(uint32_t codes) {
  return OFFSET == 0 ? codes : ((codes | 0x80808080u) - OFFSET * 0x01010101u) ^ 0x80808080u;
}

// Four codes of one row: group GROUP of the block, in columns 4 GROUP .. 4 GROUP + 3, less their offset.
template <int BITS, int FAMILY>
DEVICE uint32_t codes_of(const uint8_t* block, uint32_t group, uint32_t row) {
  const uint32_t* words = (const uint32_t*)block;
  if (BITS == 8) return words[group * 16 + row];
  uint32_t code = words[group / 2 * 16 + row] >> (group % 2 * 4) & 0x0f0f0f0fu;
  if (BITS == 5) code |= (words[64 + row] >> group & 0x01010101u) << 4;
  if (BITS == 6) code |= (words[64 + group / 4 * 16 + row] >> (group % 4 * 2) & 0x03030303u) << 4;
  return less_offset<FAMILY == MINS ? 0 : 1u << (BITS - 1)>(code);
}

template <int BITS, int FAMILY>
struct Layout {
  static constexpr uint32_t SPAN = FAMILY == PLAIN ? 64 : 256;
  static constexpr uint32_t HEADER = FAMILY == PLAIN ? 64 : 320;
  static constexpr uint32_t BLOCK = 64 * BITS;
  static constexpr uint32_t SPAN_BYTES = HEADER + SPAN / 32 * BLOCK;
};

// One warp: some spans of a tile of 16 rows times TILES tiles of 8 tokens. Lane 4g + t: rows 2g and 2g + 1.
template <int BITS, int FAMILY, int TILES>
DEVICE void sum_spans(const LinearQuantizedArgs& a, uint32_t first_token, uint32_t start, uint32_t end,
                      float (&sums)[TILES][4]) {
  using L = Layout<BITS, FAMILY>;
  uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, last = a.n - 1;
  uint32_t tile_bytes = (a.cols + L::SPAN - 1) / L::SPAN * L::HEADER + a.cols / 32 * L::BLOCK;
  const uint8_t* weights = a.weights + (size_t)blockIdx.x * tile_bytes;
  for (uint32_t span = start; span < end; span++) {
    const uint8_t* header = weights + (size_t)span * L::SPAN_BYTES;
    const uint8_t* blocks = header + L::HEADER;
    uint32_t left_cols = a.cols - span * L::SPAN, num_blocks = (left_cols < L::SPAN ? left_cols : L::SPAN) / 32;
    int dots[TILES][4] = {}, mins[TILES][4] = {};
#pragma unroll 4
    for (uint32_t b = 0; b < num_blocks; b++) {
      const uint8_t* block = blocks + b * L::BLOCK;
      uint32_t left[4], col = span * L::SPAN + b * 32;
      for (uint32_t i = 0; i < 4; i++) {
        uint32_t group = FAMILY == HALVES ? t + i / 2 * 4 : 2 * t + i / 2;
        left[i] = codes_of<BITS, FAMILY>(block, group, 2 * g + i % 2);
      }
      for (uint32_t tile = 0; tile < TILES; tile++) {
        uint32_t column = first_token + tile * 8 + g, token = column < last ? column : last;
        const uint32_t* codes = (const uint32_t*)(a.codes + (size_t)token * a.cols + col);
        int c[4];
        if constexpr (FAMILY == HALVES) {
          int d[4];
          mma_s8_half(c, left[0], left[1], codes[t]);
          mma_s8_half(d, left[2], left[3], codes[4 + t]);
          for (uint32_t i = 0; i < 4; i++) {
            const int8_t* scale = (const int8_t*)header + 64 + b * 32 + (2 * g + i / 2) * 2;
            dots[tile][i] += scale[0] * c[i] + scale[1] * d[i];
          }
        } else {
          mma_s8(c, left, codes[2 * t], codes[2 * t + 1]);
          for (uint32_t i = 0; i < 4; i++) {
            uint32_t row = 2 * g + i / 2, place = first_token + tile * 8 + 2 * t + i % 2;
            uint32_t other = place < last ? place : last;
            if constexpr (FAMILY == MINS) {
              int sum = a.sums[(size_t)other * (a.cols / 32) + col / 32];
              dots[tile][i] += header[64 + b * 16 + row] * c[i];
              mins[tile][i] += header[192 + b / 2 * 32 + row * 2 + b % 2] * sum;
            } else {
              float weight = half_bits_to_float(((const uint16_t*)header)[b * 16 + row]);
              float scale = a.scales[(size_t)other * a.num_scales + col / 32];
              sums[tile][i] = __fmaf_rn((float)c[i], weight * scale, sums[tile][i]);
            }
          }
        }
      }
    }
    if constexpr (FAMILY != PLAIN)
      for (uint32_t tile = 0; tile < TILES; tile++)
        for (uint32_t i = 0; i < 4; i++) {
          uint32_t row = 2 * g + i / 2, place = first_token + tile * 8 + 2 * t + i % 2;
          float scale = a.scales[(size_t)(place < last ? place : last) * a.num_scales + span];
          const uint16_t* halves = (const uint16_t*)header;
          sums[tile][i] = __fmaf_rn((float)dots[tile][i], half_bits_to_float(halves[row]) * scale, sums[tile][i]);
          if (FAMILY == MINS)
            sums[tile][i] =
                __fmaf_rn((float)mins[tile][i], half_bits_to_float(halves[16 + row]) * -scale, sums[tile][i]);
        }
  }
}

// A block is one tile of 16 rows times TILES tiles of 8 tokens; a warp is one chunk of the spans.
template <int BITS, int FAMILY, int TILES>
DEVICE void linear_quantized(const LinearQuantizedArgs& a, float* parts) {
  using L = Layout<BITS, FAMILY>;
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_token = blockIdx.y * TILES * 8;
  uint32_t spans = (a.cols + L::SPAN - 1) / L::SPAN, len = (spans + QUANTIZED_CHUNKS - 1) / QUANTIZED_CHUNKS;
  uint32_t start = warp * len, end = start + len < spans ? start + len : spans;
  float sums[TILES][4] = {};
  sum_spans<BITS, FAMILY, TILES>(a, first_token, start, end, sums);
  constexpr uint32_t WIDTH = TILES * 8;
  for (uint32_t tile = 0; tile < TILES; tile++)
    for (uint32_t i = 0; i < 4; i++) {
      uint32_t row = lane / 4 * 2 + i / 2, token = tile * 8 + lane % 4 * 2 + i % 2;
      parts[(warp * WIDTH + token) * 16 + row] = sums[tile][i];
    }
  __syncthreads();
  for (uint32_t index = threadIdx.x; index < WIDTH * 16; index += blockDim.x) {
    uint32_t row = blockIdx.x * 16 + index % 16, token = first_token + index / 16;
    if (row >= a.rows || token >= a.n) continue;
    float sum = parts[index];
    for (uint32_t chunk = 1; chunk < QUANTIZED_CHUNKS; chunk++) sum += parts[chunk * WIDTH * 16 + index];
    float* out = a.out + (size_t)token * a.rows + row;
    if (a.bias) sum += a.bias[row];
    *out = a.add ? *out + sum : sum;
  }
}

#define QUANTIZED_KERNELS(name, BITS, FAMILY)              \
  KERNEL(linear_##name##_8, LinearQuantizedArgs, 256) {    \
    __shared__ float parts[QUANTIZED_CHUNKS * 8 * 16];     \
    linear_quantized<BITS, FAMILY, 1>(a, parts);           \
  }                                                        \
  KERNEL(linear_##name##_32, LinearQuantizedArgs, 256) {   \
    __shared__ float parts[QUANTIZED_CHUNKS * 32 * 16];    \
    linear_quantized<BITS, FAMILY, 4>(a, parts);           \
  }

QUANTIZED_KERNELS(q8_0, 8, PLAIN)
QUANTIZED_KERNELS(q4_0, 4, PLAIN)
QUANTIZED_KERNELS(q5_0, 5, PLAIN)
QUANTIZED_KERNELS(q4_k, 4, MINS)
QUANTIZED_KERNELS(q5_k, 5, MINS)
QUANTIZED_KERNELS(q6_k, 6, HALVES)
