// What the attention kernels share: their arguments, rows, and how parts of keys are merged.
#pragma once
#include "common.cuh"

struct AttentionItem {
  uint32_t first_block;  // where the block table of the sequence starts
  uint32_t token;        // index of the first token in the step
  uint32_t position;     // its position in the sequence
  uint32_t num_tokens;
};

struct AttentionArgs {
  const float* q;    // rows of tokens, `q_stride` apart, query heads first
  const void* keys;  // [blocks][kv_heads][block_size][dim]
  const void* values;
  const uint32_t* block_tables;
  const AttentionItem* items;
  float* out;          // [tokens][heads][dim]
  float* partial;      // [tokens][heads][parts][dim + 2]; null: one block does all parts
  const float* sinks;  // a score without a value for each head; may be null
  uint32_t q_stride, heads, kv_heads, dim, block_size, window, num_parts, head_tiles;
  float scale, soft_cap;  // no cap: 0
};

// Keys of a tile and of a part, both counted from position 0.
constexpr uint32_t KEYS = 32, PART_KEYS = 256;

// What a row has seen before its first key: nothing, or its head's sink.
DEVICE void begin(const float* sinks, uint32_t head, float& max, float& sum) {
  max = sinks ? sinks[head] : negative_infinity();
  sum = sinks ? 1.0f : 0.0f;
}

// Adds what a later part saw to what all before it saw: the factors of both. False where it saw nothing.
DEVICE bool merge_sums(float& max, float& sum, float part_max, float part_sum, float& before, float& now) {
  if (part_max == negative_infinity()) return false;
  float greatest = part_max > max ? part_max : max;
  before = max == negative_infinity() ? 0.0f : exp_poly(max - greatest), now = exp_poly(part_max - greatest);
  sum = __fmaf_rn(sum, before, part_sum * now);
  max = greatest;
  return true;
}

struct AttentionRow {
  uint32_t token, head, position, oldest;
  bool used;
};

// Row `row` of an item whose blocks take `max_rows` rows.
DEVICE AttentionRow attention_row(const AttentionArgs& a, const AttentionItem& item, uint32_t row, uint32_t max_rows) {
  uint32_t groups = a.heads / a.kv_heads, kv = blockIdx.y / a.head_tiles, tile = blockIdx.y % a.head_tiles;
  uint32_t tile_heads = a.head_tiles == 1 ? groups : max_rows;
  uint32_t token = row / tile_heads, in_group = tile * tile_heads + row % tile_heads;
  AttentionRow r;
  r.used = token < item.num_tokens && in_group < groups;
  r.token = item.token + token, r.head = r.used ? kv * groups + in_group : 0, r.position = item.position + token;
  r.oldest = r.position + 1 > a.window ? r.position + 1 - a.window : 0;
  return r;
}
