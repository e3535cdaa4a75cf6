// From logits to tokens: one block a row, so that only the tokens leave the device.
//
// The rules are those of the CPU: an exponential race among the candidates that top_k and top_p leave, with the random
// words of Philox4x32-10 for seed, position and token. Weights count as integers of which one is 2^32, so sums have no
// order; ties go to the lower token.
#include "common.cuh"

struct Edit {
  uint32_t row, token, masked, penalized, count;
  float bias;
};

struct SampleRow {
  uint64_t seed, position;
  float temperature, top_p, min_p, repetition, frequency, presence;
  uint32_t top_k;  // 0: all
};

struct EditArgs {
  float* logits;
  const SampleRow* rows;
  const Edit* edits;
  uint32_t num_edits, vocab;
};

KERNEL(edit_logits, EditArgs, 256) {
  uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= a.num_edits) return;
  Edit edit = a.edits[index];
  const SampleRow* row = a.rows + edit.row;
  float* place = a.logits + (size_t)edit.row * a.vocab + edit.token;
  float logit = edit.masked ? negative_infinity() : *place;
  logit += edit.bias;
  if (edit.penalized) {
    logit = logit > 0.0f ? logit / row->repetition : logit * row->repetition;
    if (edit.count) logit -= row->frequency * (float)edit.count + row->presence;
  }
  *place = logit;
}

struct SampleArgs {
  const float* logits;  // [rows][vocab]
  const SampleRow* rows;
  uint32_t* usable;  // [rows]: and-ed with whether something can be sampled
  uint32_t* tokens;  // [rows]; null: only look
  uint32_t vocab;
};

constexpr uint32_t SAMPLE_THREADS = 512, SAMPLE_WARPS = SAMPLE_THREADS / 32;

// A float as an integer with the same order.
DEVICE uint32_t order_key(float x) {
  uint32_t bits = __float_as_uint(x + 0.0f);  // both zeros are one
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Best {
  float value;
  uint32_t token;
  bool bad;
};

// The greatest value, the lowest token of several, and whether a value is NaN or positive infinity.
DEVICE Best scan_row(const float* logits, uint32_t vocab) {
  __shared__ float values[SAMPLE_WARPS];
  __shared__ uint32_t tokens[SAMPLE_WARPS], bads[SAMPLE_WARPS];
  float best = negative_infinity();
  uint32_t token = 0xffffffffu, bad = 0;
  for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) {
    float x = logits[i];
    bad |= !(x <= 3.4028234663852886e38f);
    if (x > best || (x == best && token == 0xffffffffu)) best = x, token = i;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    float other = __shfl_xor_sync(ALL_LANES, best, mask);
    uint32_t theirs = __shfl_xor_sync(ALL_LANES, token, mask);
    bad |= __shfl_xor_sync(ALL_LANES, bad, mask);
    if (other > best || (other == best && theirs < token)) best = other, token = theirs;
  }
  if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = best, tokens[threadIdx.x / 32] = token, bads[threadIdx.x / 32] = bad;
  __syncthreads();
  Best all = {values[0], tokens[0], bads[0] != 0};
  for (uint32_t warp = 1; warp < SAMPLE_WARPS; warp++) {
    if (values[warp] > all.value || (values[warp] == all.value && tokens[warp] < all.token))
      all.value = values[warp], all.token = tokens[warp];
    all.bad |= bads[warp] != 0;
  }
  __syncthreads();
  return all;
}

// `e^x` for x <= 0, as the CPU samples with it: no multiplication is fused.
DEVICE float exp_sampling(float x) {
  const float round = 12582912.0f;
  float clamped = x < -87.0f ? -87.0f : x;
  float rounded = clamped * 1.44269504088896341f + round;
  float n = rounded - round;
  float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  const float coefficients[8] = {1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f};
  float power = 0.0f;
  for (int i = 0; i < 8; i++) power = power * r + coefficients[i];
  uint32_t exponent = __float_as_uint(rounded) - __float_as_uint(round) + 127u;
  return x < -87.0f ? 0.0f : power * __uint_as_float(exponent << 23);
}

DEVICE uint64_t weight_mass(float weight) { return (uint64_t)((double)weight * 4294967296.0); }

// The random word of a token.
DEVICE uint32_t philox_word(uint64_t seed, uint64_t position, uint32_t token) {
  uint32_t c0 = token / 4, c1 = (uint32_t)position, c2 = (uint32_t)(position >> 32), c3 = 0;
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)c0 * 0xd2511f53u, p1 = (uint64_t)c2 * 0xcd9e8d57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1, c3 = (uint32_t)p0;
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return token % 4 == 0 ? c0 : token % 4 == 1 ? c1 : token % 4 == 2 ? c2 : c3;
}

// Which tokens may be drawn: all with a greater key, and of those with this key the lowest up to `last`.
struct Border {
  uint32_t key, last;
};

DEVICE bool admits(const Border& border, uint32_t key, uint32_t token) {
  return key > border.key || (key == border.key && token <= border.last);
}

// The shortest run of best tokens within `within` whose amounts reach `target`, by one byte of the key after the other.
// `amount` of a token is 1 (for top_k) or its mass.
template <typename Amount>
DEVICE Border find_border(const float* logits, uint32_t vocab, Border within, uint64_t target, Amount amount) {
  __shared__ unsigned long long bins[256];
  __shared__ uint32_t chosen, last_token, counts[SAMPLE_WARPS];
  __shared__ unsigned long long missing;
  uint32_t prefix = 0, mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < vocab; i += blockDim.x) {
      uint32_t key = order_key(logits[i]);
      if ((key & mask) == prefix && admits(within, key, i)) atomicAdd(&bins[key >> shift & 255], (unsigned long long)amount(logits[i]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      uint32_t bin = 255;
      unsigned long long left = target;
      while (bin > 0 && bins[bin] < left) left -= bins[bin], bin--;
      chosen = bin, missing = left;
    }
    __syncthreads();
    prefix |= chosen << shift, mask |= 255u << shift, target = missing;
    __syncthreads();
  }
  // Of the tokens with exactly this key, in ascending order, as many as are needed.
  if (threadIdx.x == 0) last_token = 0xffffffffu;
  uint64_t before = 0;
  for (uint32_t base = 0; base < vocab; base += blockDim.x) {
    uint32_t i = base + threadIdx.x;
    bool is_tie = i < vocab && order_key(logits[i]) == prefix && admits(within, prefix, i);
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = is_tie;
    for (uint32_t step = 1; step < 32; step *= 2) {
      uint32_t other = __shfl_sync(ALL_LANES, rank, (int)((lane - step) & 31));
      if (lane >= step) rank += other;
    }
    if (lane == 31) counts[warp] = rank;
    __syncthreads();
    uint64_t all = before;
    for (uint32_t w = 0; w < SAMPLE_WARPS; w++) {
      if (w == warp) rank += (uint32_t)(all - before);
      all += counts[w];
    }
    // The first whose run reaches the target.
    if (is_tie) {
      uint64_t each = amount(logits[i]), through = (before + rank) * each;
      if (target <= through && through - each < target) last_token = i;
    }
    before = all;
    __syncthreads();
    if (last_token != 0xffffffffu) break;
    __syncthreads();
  }
  Border border = {prefix, last_token};
  __syncthreads();
  return border;
}

DEVICE uint64_t block_total(uint64_t x) {
  __shared__ unsigned long long totals[SAMPLE_WARPS];
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(ALL_LANES, (unsigned long long)x, mask);
  if (threadIdx.x % 32 == 0) totals[threadIdx.x / 32] = x;
  __syncthreads();
  uint64_t total = 0;
  for (uint32_t warp = 0; warp < SAMPLE_WARPS; warp++) total += totals[warp];
  __syncthreads();
  return total;
}

DEVICE uint32_t race(const float* logits, const SampleArgs& a, const SampleRow& row, Best best, Border border) {
  __shared__ double times[SAMPLE_WARPS];
  __shared__ uint32_t winners[SAMPLE_WARPS];
  double time = 1.0 / 0.0;
  uint32_t winner = best.token;
  for (uint32_t i = threadIdx.x; i < a.vocab; i += blockDim.x) {
    if (!admits(border, order_key(logits[i]), i)) continue;
    float weight = exp_sampling((logits[i] - best.value) / row.temperature);
    if (weight == 0.0f || weight < row.min_p) continue;
    double u = ((double)philox_word(row.seed, row.position, i) + 0.5) / 4294967296.0;
    if (time * (double)weight < 1.0 - u) continue;
    double mine = -log(u) / (double)weight;
    if (mine < time || (mine == time && i < winner)) time = mine, winner = i;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double other = __shfl_xor_sync(ALL_LANES, time, mask);
    uint32_t theirs = __shfl_xor_sync(ALL_LANES, winner, mask);
    if (other < time || (other == time && theirs < winner)) time = other, winner = theirs;
  }
  if (threadIdx.x % 32 == 0) times[threadIdx.x / 32] = time, winners[threadIdx.x / 32] = winner;
  __syncthreads();
  time = times[0], winner = winners[0];
  for (uint32_t warp = 1; warp < SAMPLE_WARPS; warp++)
    if (times[warp] < time || (times[warp] == time && winners[warp] < winner)) time = times[warp], winner = winners[warp];
  return winner;
}

KERNEL(sample, SampleArgs, SAMPLE_THREADS) {
  const float* logits = a.logits + (size_t)blockIdx.x * a.vocab;
  Best best = scan_row(logits, a.vocab);
  bool usable = !best.bad && best.value != negative_infinity();
  if (threadIdx.x == 0) a.usable[blockIdx.x] &= usable ? 1u : 0u;
  if (!a.tokens) return;
  SampleRow row = a.rows[blockIdx.x];
  uint32_t token = best.token;
  if (usable && row.temperature != 0.0f) {
    auto mass = [&](float logit) { return weight_mass(exp_sampling((logit - best.value) / row.temperature)); };
    Border border = {0, 0xffffffffu};
    if (row.top_k != 0 && row.top_k < a.vocab)
      border = find_border(logits, a.vocab, border, row.top_k, [](float) { return (uint64_t)1; });
    if (row.top_p < 1.0f) {
      uint64_t total = 0;
      for (uint32_t i = threadIdx.x; i < a.vocab; i += blockDim.x)
        if (admits(border, order_key(logits[i]), i)) total += mass(logits[i]);
      double target = (double)block_total(total) * (double)row.top_p;
      // The least whole number that is not below it, at least one.
      uint64_t whole = (uint64_t)target;
      whole += (double)whole < target;
      border = find_border(logits, a.vocab, border, whole > 1 ? whole : 1, mass);
    }
    token = race(logits, a, row, best, border);
  }
  if (threadIdx.x == 0) a.tokens[blockIdx.x] = token;
}
