// Keys and values of a step into their slots, and copies of whole blocks.
#include "common.cuh"

struct StoreKvArgs {
  const float* keys;  // of the first token; rows are `stride` apart
  const float* values;
  const uint32_t* slots;
  void* key_cache;  // [blocks][heads][block_size][dim]
  void* value_cache;
  uint32_t stride, heads, dim, block_size;
};

DEVICE void store_as(float x, float* to) { *to = x; }
DEVICE void store_as(float x, uint16_t* to) { *to = (uint16_t)float_to_bf16(x); }

template <typename T>
DEVICE void store_kv(const StoreKvArgs& a) {
  uint32_t slot = a.slots[blockIdx.x], width = a.heads * a.dim;
  size_t block = slot / a.block_size, offset = slot % a.block_size;
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
    size_t place = ((block * a.heads + i / a.dim) * a.block_size + offset) * a.dim + i % a.dim;
    store_as(a.keys[(size_t)blockIdx.x * a.stride + i], (T*)a.key_cache + place);
    store_as(a.values[(size_t)blockIdx.x * a.stride + i], (T*)a.value_cache + place);
  }
}

KERNEL(store_kv_f32, StoreKvArgs, 256) { store_kv<float>(a); }
KERNEL(store_kv_bf16, StoreKvArgs, 256) { store_kv<uint16_t>(a); }
