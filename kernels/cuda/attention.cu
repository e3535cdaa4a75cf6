// Attention over a paged cache, in f32 on ordinary cores.
//
// A row is a query of one head; a block takes the rows of a few neighbouring tokens for all query heads of a key/value
// head. Keys come in tiles of 32 and parts of 256, both counted from position 0. Each part is an online softmax of its
// own; parts are merged in ascending order, by one block or by `merge_parts`. So a row is the same for decoding, for
// prefill in chunks and at once, and whatever else is in the batch.
#include "attention.cuh"

constexpr uint32_t ATTENTION_ROWS = 16, ROWS_PER_WARP = 4;

DEVICE float load_as_float(const float* from) { return *from; }
DEVICE float load_as_float(const uint16_t* from) { return bf16_to_float(*from); }

template <int LANES>
DEVICE void merge(float& max, float& sum, float (&acc)[LANES], float part_max, float part_sum, const float (&part)[LANES]) {
  float before, now;
  if (!merge_sums(max, sum, part_max, part_sum, before, now)) return;
#pragma unroll
  for (int i = 0; i < LANES; i++) acc[i] = __fmaf_rn(acc[i], before, part[i] * now);
}

// LANES values of a head a lane: element i of lane l is 32 i + l.
template <typename T, int LANES>
DEVICE void attention(const AttentionArgs& a) {
  constexpr uint32_t WIDTH = 32 * LANES;
  SHARED_BYTES(shared);
  float* queries = (float*)shared;                        // [16][WIDTH]
  float* keys = queries + ATTENTION_ROWS * WIDTH;         // [KEYS][WIDTH + 1]
  float* values = keys + KEYS * (WIDTH + 1);              // [KEYS][WIDTH]
  AttentionItem item = a.items[blockIdx.x];
  const uint32_t* blocks = a.block_tables + item.first_block;
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv = blockIdx.y / a.head_tiles;
  for (uint32_t i = threadIdx.x; i < ATTENTION_ROWS * WIDTH; i += blockDim.x) {
    AttentionRow r = attention_row(a, item, i / WIDTH, ATTENTION_ROWS);
    bool inside = r.used && i % WIDTH < a.dim;
    queries[i] = inside ? a.q[(size_t)r.token * a.q_stride + r.head * a.dim + i % WIDTH] * a.scale : 0.0f;
  }
  AttentionRow rows[ROWS_PER_WARP];
#pragma unroll
  for (uint32_t r = 0; r < ROWS_PER_WARP; r++) rows[r] = attention_row(a, item, warp * ROWS_PER_WARP + r, ATTENTION_ROWS);
  float max[ROWS_PER_WARP], sum[ROWS_PER_WARP], acc[ROWS_PER_WARP][LANES];
  float all_max[ROWS_PER_WARP], all_sum[ROWS_PER_WARP], all[ROWS_PER_WARP][LANES];
#pragma unroll
  for (uint32_t r = 0; r < ROWS_PER_WARP; r++) {
    begin(a.sinks, rows[r].head, all_max[r], all_sum[r]);
#pragma unroll
    for (int i = 0; i < LANES; i++) all[r][i] = 0.0f;
  }
  uint32_t end = item.position + item.num_tokens;
  uint32_t oldest = item.position + 1 > a.window ? item.position + 1 - a.window : 0;
  uint32_t first_part = a.partial ? blockIdx.z : oldest / PART_KEYS;
  uint32_t last_part = a.partial ? blockIdx.z : (end - 1) / PART_KEYS;
  for (uint32_t part = first_part; part <= last_part; part++) {
#pragma unroll
    for (uint32_t r = 0; r < ROWS_PER_WARP; r++) {
      max[r] = negative_infinity(), sum[r] = 0.0f;
#pragma unroll
      for (int i = 0; i < LANES; i++) acc[r][i] = 0.0f;
    }
    for (uint32_t base = part * PART_KEYS; base < (part + 1) * PART_KEYS && base < end; base += KEYS) {
      if (base + KEYS <= oldest) continue;
      __syncthreads();
      for (uint32_t i = threadIdx.x; i < KEYS * WIDTH; i += blockDim.x) {
        uint32_t key = i / WIDTH, d = i % WIDTH, position = base + key;
        float k = 0.0f, v = 0.0f;
        if (position >= oldest && position < end && d < a.dim) {
          size_t block = blocks[position / a.block_size];
          size_t place = ((block * a.kv_heads + kv) * a.block_size + position % a.block_size) * a.dim + d;
          k = load_as_float((const T*)a.keys + place), v = load_as_float((const T*)a.values + place);
        }
        keys[key * (WIDTH + 1) + d] = k, values[i] = v;
      }
      __syncthreads();
#pragma unroll
      for (uint32_t r = 0; r < ROWS_PER_WARP; r++) {
        uint32_t position = base + lane;
        bool seen = rows[r].used && position >= rows[r].oldest && position <= rows[r].position;
        const float* query = queries + (warp * ROWS_PER_WARP + r) * WIDTH;
        float score = 0.0f;
        for (uint32_t d = 0; d < a.dim; d++) score = __fmaf_rn(query[d], keys[lane * (WIDTH + 1) + d], score);
        if (a.soft_cap != 0.0f) score = a.soft_cap * tanh_poly(score / a.soft_cap);
        float greatest = warp_max(seen ? score : negative_infinity());
        if (greatest == negative_infinity()) continue;
        float now = greatest > max[r] ? greatest : max[r];
        float weight = seen ? exp_poly(score - now) : 0.0f;
        float factor = max[r] == negative_infinity() ? 0.0f : exp_poly(max[r] - now);
        sum[r] = __fmaf_rn(sum[r], factor, warp_sum(weight));
        max[r] = now;
#pragma unroll
        for (int i = 0; i < LANES; i++) acc[r][i] *= factor;
        for (uint32_t key = 0; key < KEYS; key++) {
          float w = __shfl_sync(ALL_LANES, weight, (int)key);
#pragma unroll
          for (int i = 0; i < LANES; i++) acc[r][i] = __fmaf_rn(w, values[key * WIDTH + 32 * i + lane], acc[r][i]);
        }
      }
    }
#pragma unroll
    for (uint32_t r = 0; r < ROWS_PER_WARP; r++) {
      if (!a.partial) {
        merge(all_max[r], all_sum[r], all[r], max[r], sum[r], acc[r]);
      } else if (rows[r].used) {
        float* to = a.partial + (((size_t)rows[r].token * a.heads + rows[r].head) * a.num_parts + part) * (a.dim + 2);
        if (lane == 0) to[0] = max[r], to[1] = sum[r];
#pragma unroll
        for (int i = 0; i < LANES; i++)
          if (32 * i + lane < a.dim) to[2 + 32 * i + lane] = acc[r][i];
      }
    }
  }
  if (a.partial) return;
#pragma unroll
  for (uint32_t r = 0; r < ROWS_PER_WARP; r++) {
    if (!rows[r].used) continue;
    float* out = a.out + ((size_t)rows[r].token * a.heads + rows[r].head) * a.dim;
    float scale = 1.0f / all_sum[r];
#pragma unroll
    for (int i = 0; i < LANES; i++)
      if (32 * i + lane < a.dim) out[32 * i + lane] = all[r][i] * scale;
  }
}

struct MergeArgs {
  const float* partial;  // [rows][parts][dim + 2]
  const float* sinks;    // [heads]; may be null
  float* out;            // [rows][dim]
  uint32_t rows, dim, num_parts, heads;
};

// A warp a row.
template <int LANES>
DEVICE void merge_parts(const MergeArgs& a) {
  uint32_t lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= a.rows) return;
  float max, sum, acc[LANES] = {};
  begin(a.sinks, row % a.heads, max, sum);
  for (uint32_t part = 0; part < a.num_parts; part++) {
    const float* from = a.partial + ((size_t)row * a.num_parts + part) * (a.dim + 2);
    float values[LANES];
#pragma unroll
    for (int i = 0; i < LANES; i++) values[i] = 32 * i + lane < a.dim ? from[2 + 32 * i + lane] : 0.0f;
    merge(max, sum, acc, from[0], from[1], values);
  }
  float scale = 1.0f / sum;
#pragma unroll
  for (int i = 0; i < LANES; i++)
    if (32 * i + lane < a.dim) a.out[(size_t)row * a.dim + 32 * i + lane] = acc[i] * scale;
}

KERNEL(attention_f32_64, AttentionArgs, 128) { attention<float, 2>(a); }
KERNEL(attention_f32_128, AttentionArgs, 128) { attention<float, 4>(a); }
KERNEL(attention_f32_256, AttentionArgs, 128) { attention<float, 8>(a); }
KERNEL(attention_bf16_64, AttentionArgs, 128) { attention<uint16_t, 2>(a); }
KERNEL(attention_bf16_128, AttentionArgs, 128) { attention<uint16_t, 4>(a); }
KERNEL(attention_bf16_256, AttentionArgs, 128) { attention<uint16_t, 8>(a); }
KERNEL(merge_parts_64, MergeArgs, 128) { merge_parts<2>(a); }
KERNEL(merge_parts_128, MergeArgs, 128) { merge_parts<4>(a); }
KERNEL(merge_parts_256, MergeArgs, 128) { merge_parts<8>(a); }
