// Rows of a packed table.
#include "common.cuh"

struct EmbeddingArgs {
  const uint32_t* ids;
  const uint8_t* table;
  float* out;  // [n][cols]
  uint32_t cols;
  // 0: f32 panels, 1: pairs of bf16, 2: a scale a block, 3: scales and minimums, 4: scales of half a block.
  uint32_t layout;
  uint32_t bits;
};

DEVICE float table_f32(const EmbeddingArgs& a, size_t row, uint32_t col) {
  return ((const float*)a.table)[(row / 64 * a.cols + col) * 64 + row % 64];
}

DEVICE float table_bf16(const EmbeddingArgs& a, size_t row, uint32_t col) {
  size_t words = (size_t)(a.cols + 31) / 32 * 16 * 16;
  uint32_t word = ((const uint32_t*)a.table)[row / 16 * words + col / 2 * 16 + row % 16];
  return bf16_to_float(col % 2 ? word >> 16 : word & 0xffffu);
}

DEVICE float table_quantized(const EmbeddingArgs& a, size_t row, uint32_t col) {
  uint32_t span = a.layout == 2 ? 64 : 256, header = a.layout == 2 ? 64 : 320, block = 64 * a.bits;
  uint32_t tile_bytes = (a.cols + span - 1) / span * header + a.cols / 32 * block, lane = row % 16;
  const uint8_t* head = a.table + row / 16 * tile_bytes + (size_t)(col / span) * (header + span / 32 * block);
  uint32_t b = col % span / 32, group = col % 32 / 4, byte = lane * 4 + col % 4;
  const uint8_t* codes = head + header + b * block;
  const uint16_t* halves = (const uint16_t*)head;
  int code;
  if (a.bits == 8) {
    code = (int8_t)codes[group * 64 + byte];
  } else {
    code = codes[group / 2 * 64 + byte] >> (group % 2 * 4) & 15;
    if (a.bits == 5) code |= (codes[256 + byte] >> group & 1) << 4;
    if (a.bits == 6) code |= (codes[256 + group / 4 * 64 + byte] >> (group % 4 * 2) & 3) << 4;
    if (a.layout != 3) code -= 1 << (a.bits - 1);
  }
  if (a.layout == 2) return half_bits_to_float(halves[b * 16 + lane]) * (float)code;
  float d = half_bits_to_float(halves[lane]);
  if (a.layout == 4) return d * (float)(int8_t)head[64 + b * 32 + lane * 2 + col % 32 / 16] * (float)code;
  float min = half_bits_to_float(halves[16 + lane]) * (float)head[192 + b / 2 * 32 + lane * 2 + b % 2];
  return d * (float)head[64 + b * 16 + lane] * (float)code - min;
}

KERNEL(embedding, EmbeddingArgs, 256) {
  size_t row = a.ids[blockIdx.x];
  float* out = a.out + (size_t)blockIdx.x * a.cols;
  for (uint32_t col = threadIdx.x; col < a.cols; col += blockDim.x)
    out[col] = a.layout == 0 ? table_f32(a, row, col) : a.layout == 1 ? table_bf16(a, row, col) : table_quantized(a, row, col);
}
