// Attention over a paged bf16 cache on tensor cores; the order of parts and tiles is that of attention.cu.
//
// A warp takes 16 rows, the queries of a few neighbouring tokens for all heads of a key/value head; the four warps of a
// block share the keys and values of a tile. Queries and weights are sums of two bf16 each, 16 bits of their 24.
#include "attention.cuh"

constexpr uint32_t MMA_ROWS = 64, MMA_WARPS = 4;

struct Halves {
  uint32_t high, low;
};

DEVICE Halves split_pair(float x, float y) {
  float high_x = bf16_to_float(float_to_bf16(x)), high_y = bf16_to_float(float_to_bf16(y));
  return {pack_bf16(high_x, high_y), pack_bf16(x - high_x, y - high_y)};
}

// The two rows of a lane: 4g + t holds g and g + 8.
struct LaneRows {
  AttentionRow row[2];
  float max[2], sum[2];
};

// Writes the scaled queries of a warp as left sides: [steps][high, low][lanes].
template <int STEPS>
DEVICE void load_queries(const AttentionArgs& a, const LaneRows& rows, uint4* queries, uint32_t lane) {
  for (uint32_t step = 0; step < STEPS; step++) {
    Halves part[4];
    for (uint32_t i = 0; i < 4; i++) {
      const AttentionRow& row = rows.row[i % 2];
      uint32_t d = step * 16 + i / 2 * 8 + lane % 4 * 2;
      bool inside = row.used && d < a.dim;
      const float* q = a.q + (size_t)row.token * a.q_stride + row.head * a.dim + d;
      part[i] = split_pair(inside ? q[0] * a.scale : 0.0f, inside ? q[1] * a.scale : 0.0f);
    }
    queries[step * 64 + lane] = make_uint4(part[0].high, part[1].high, part[2].high, part[3].high);
    queries[step * 64 + 32 + lane] = make_uint4(part[0].low, part[1].low, part[2].low, part[3].low);
  }
}

// Keys as [key][pairs of d], values as [d][pairs of keys]; zeros for what nobody sees.
template <int WIDTH>
DEVICE void load_tile(const AttentionArgs& a, const uint32_t* blocks, uint32_t base, uint32_t oldest, uint32_t end,
                      uint32_t* keys, uint32_t* values) {
  constexpr uint32_t CHUNKS = WIDTH / 8, KEY_STRIDE = WIDTH / 2 + 4, VALUE_STRIDE = KEYS / 2 + 4;
  uint32_t kv = blockIdx.y / a.head_tiles;
  for (uint32_t i = threadIdx.x; i < KEYS / 2 * CHUNKS; i += MMA_WARPS * 32) {
    uint32_t pair = i / CHUNKS, d = i % CHUNKS * 8;
    uint4 k[2], v[2];
    for (uint32_t j = 0; j < 2; j++) {
      uint32_t position = base + pair * 2 + j;
      k[j] = v[j] = make_uint4(0, 0, 0, 0);
      if (position < oldest || position >= end || d >= a.dim) continue;
      size_t block = blocks[position / a.block_size];
      size_t place = ((block * a.kv_heads + kv) * a.block_size + position % a.block_size) * a.dim + d;
      k[j] = *(const uint4*)((const uint16_t*)a.keys + place);
      v[j] = *(const uint4*)((const uint16_t*)a.values + place);
    }
    for (uint32_t j = 0; j < 2; j++) *(uint4*)(keys + (pair * 2 + j) * KEY_STRIDE + d / 2) = k[j];
    const uint32_t first[4] = {v[0].x, v[0].y, v[0].z, v[0].w}, second[4] = {v[1].x, v[1].y, v[1].z, v[1].w};
    for (uint32_t j = 0; j < 4; j++) {
      values[(d + 2 * j) * VALUE_STRIDE + pair] = (first[j] & 0xffffu) | second[j] << 16;
      values[(d + 2 * j + 1) * VALUE_STRIDE + pair] = first[j] >> 16 | (second[j] & 0xffff0000u);
    }
  }
}

// One tile of keys for the rows of a warp.
template <int WIDTH>
DEVICE void attend(const AttentionArgs& a, LaneRows& rows, uint32_t base, const uint4* queries, const uint32_t* keys,
                   const uint32_t* values, float (&acc)[WIDTH / 8][4]) {
  constexpr uint32_t KEY_STRIDE = WIDTH / 2 + 4, VALUE_STRIDE = KEYS / 2 + 4;
  uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float scores[KEYS / 8][4] = {};
#pragma unroll
  for (uint32_t step = 0; step < WIDTH / 16; step++) {
    uint4 high = queries[step * 64 + lane], low = queries[step * 64 + 32 + lane];
    const uint32_t left[4] = {high.x, high.y, high.z, high.w}, rest[4] = {low.x, low.y, low.z, low.w};
#pragma unroll
    for (uint32_t tile = 0; tile < KEYS / 8; tile++) {
      const uint32_t* key = keys + (tile * 8 + g) * KEY_STRIDE + step * 8 + t;
      mma_bf16(scores[tile], left, key[0], key[4]);
      mma_bf16(scores[tile], rest, key[0], key[4]);
    }
  }
#pragma unroll
  for (uint32_t r = 0; r < 2; r++) {
    const AttentionRow& row = rows.row[r];
    float greatest = negative_infinity();
#pragma unroll
    for (uint32_t i = 0; i < KEYS / 4; i++) {
      float& score = scores[i / 2][r * 2 + i % 2];
      uint32_t position = base + i / 2 * 8 + t * 2 + i % 2;
      if (a.soft_cap != 0.0f) score = a.soft_cap * tanh_poly(score / a.soft_cap);
      if (!row.used || position < row.oldest || position > row.position) score = negative_infinity();
      greatest = score > greatest ? score : greatest;
    }
    for (int mask = 1; mask <= 2; mask *= 2) {
      float other = __shfl_xor_sync(ALL_LANES, greatest, mask);
      greatest = other > greatest ? other : greatest;
    }
    bool sees = greatest != negative_infinity();
    float now = greatest > rows.max[r] ? greatest : rows.max[r], sum = 0.0f;
    float factor = !sees ? 1.0f : rows.max[r] == negative_infinity() ? 0.0f : exp_poly(rows.max[r] - now);
#pragma unroll
    for (uint32_t i = 0; i < KEYS / 4; i++) {
      float& score = scores[i / 2][r * 2 + i % 2];
      score = score == negative_infinity() ? 0.0f : exp_poly(score - now);
      sum += score;
    }
    for (int mask = 1; mask <= 2; mask *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, mask);
    if (sees) rows.sum[r] = __fmaf_rn(rows.sum[r], factor, sum), rows.max[r] = now;
#pragma unroll
    for (uint32_t n = 0; n < WIDTH / 8; n++) acc[n][r * 2] *= factor, acc[n][r * 2 + 1] *= factor;
  }
#pragma unroll
  for (uint32_t step = 0; step < KEYS / 16; step++) {
    // Scores of two tiles of keys are the left side of sixteen keys.
    uint32_t left[4], rest[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
      const float(&pair)[4] = scores[step * 2 + i / 2];
      Halves part = split_pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
      left[i] = part.high, rest[i] = part.low;
    }
#pragma unroll
    for (uint32_t n = 0; n < WIDTH / 8; n++) {
      const uint32_t* value = values + (n * 8 + g) * VALUE_STRIDE + step * 8 + t;
      mma_bf16(acc[n], left, value[0], value[4]);
      mma_bf16(acc[n], rest, value[0], value[4]);
    }
  }
}

template <int WIDTH>
DEVICE void attention_mma(const AttentionArgs& a) {
  constexpr uint32_t STEPS = WIDTH / 16, TILES = WIDTH / 8;
  SHARED_BYTES(shared);
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint4* queries = (uint4*)shared + warp * STEPS * 64;
  uint32_t* keys = (uint32_t*)((uint4*)shared + MMA_WARPS * STEPS * 64);
  uint32_t* values = keys + KEYS * (WIDTH / 2 + 4);
  AttentionItem item = a.items[blockIdx.x];
  const uint32_t* blocks = a.block_tables + item.first_block;
  LaneRows rows;
#pragma unroll
  for (uint32_t r = 0; r < 2; r++) rows.row[r] = attention_row(a, item, warp * 16 + r * 8 + lane / 4, MMA_ROWS);
  // Rows of a warp are used from its first on.
  bool used = attention_row(a, item, warp * 16, MMA_ROWS).used;
  load_queries<STEPS>(a, rows, queries, lane);
  float all_max[2], all_sum[2], all[TILES][4] = {};
#pragma unroll
  for (uint32_t r = 0; r < 2; r++) begin(a.sinks, rows.row[r].head, all_max[r], all_sum[r]);
  uint32_t end = item.position + item.num_tokens;
  uint32_t oldest = item.position + 1 > a.window ? item.position + 1 - a.window : 0;
  uint32_t first_part = a.partial ? blockIdx.z : oldest / PART_KEYS;
  uint32_t last_part = a.partial ? blockIdx.z : (end - 1) / PART_KEYS;
  for (uint32_t part = first_part; part <= last_part; part++) {
    float acc[TILES][4] = {};
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) rows.max[r] = negative_infinity(), rows.sum[r] = 0.0f;
    for (uint32_t base = part * PART_KEYS; base < (part + 1) * PART_KEYS && base < end; base += KEYS) {
      if (base + KEYS <= oldest) continue;
      __syncthreads();
      load_tile<WIDTH>(a, blocks, base, oldest, end, keys, values);
      __syncthreads();
      if (used) attend<WIDTH>(a, rows, base, queries, keys, values, acc);
    }
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
      const AttentionRow& row = rows.row[r];
      float before, now;
      if (!a.partial && merge_sums(all_max[r], all_sum[r], rows.max[r], rows.sum[r], before, now)) {
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
          for (uint32_t i = r * 2; i < r * 2 + 2; i++) all[n][i] = __fmaf_rn(all[n][i], before, acc[n][i] * now);
      }
      if (!a.partial || !row.used) continue;
      float* to = a.partial + (((size_t)row.token * a.heads + row.head) * a.num_parts + part) * (a.dim + 2);
      if (lane % 4 == 0) to[0] = rows.max[r], to[1] = rows.sum[r];
#pragma unroll
      for (uint32_t n = 0; n < TILES; n++)
        for (uint32_t i = 0; i < 2; i++) {
          uint32_t d = n * 8 + lane % 4 * 2 + i;
          if (d < a.dim) to[2 + d] = acc[n][r * 2 + i];
        }
    }
  }
  if (a.partial) return;
#pragma unroll
  for (uint32_t r = 0; r < 2; r++) {
    const AttentionRow& row = rows.row[r];
    if (!row.used) continue;
    float* out = a.out + ((size_t)row.token * a.heads + row.head) * a.dim;
    float scale = 1.0f / all_sum[r];
#pragma unroll
    for (uint32_t n = 0; n < TILES; n++)
      for (uint32_t i = 0; i < 2; i++) {
        uint32_t d = n * 8 + lane % 4 * 2 + i;
        if (d < a.dim) out[d] = all[n][r * 2 + i] * scale;
      }
  }
}

KERNEL(attention_mma_64, AttentionArgs, 128) { attention_mma<64>(a); }
KERNEL(attention_mma_128, AttentionArgs, 128) { attention_mma<128>(a); }
