//! Blocks are written where they should be, copied, and sized from memory.

use candle_core::{DType, Device, Tensor};

use super::*;

const CPU: &Device = &Device::Cpu;

fn spec(dtype: DType) -> KvCacheSpec {
    KvCacheSpec { num_layers: 2, num_kv_heads: 3, head_dim: 5, block_size: 4, num_blocks: 6, dtype }
}

fn rows(num_tokens: usize, from: f32) -> Tensor {
    let len = (num_tokens * 15) as u32;
    let values = Tensor::arange(0, len, CPU).unwrap().to_dtype(DType::F32).unwrap();
    ((values * 0.25).unwrap() + f64::from(from)).unwrap().reshape((num_tokens, 3, 5)).unwrap()
}

fn store(
    cache: &PagedKvCache,
    layer: usize,
    (k, v): (&Tensor, &Tensor),
    slots: &[u32],
) -> Result<()> {
    let [k, v] = [k, v].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    cache.store(layer, Rows::dense(&k, 5), Rows::dense(&v, 5), slots)
}

/// `[num_slots, num_kv_heads, head_dim]` of K and V.
fn slots(cache: &PagedKvCache, layer: usize) -> [Vec<Vec<Vec<f32>>>; 2] {
    let layer = cache.layer(layer).unwrap();
    let k = layer.k.permute((0, 3, 1, 2)).unwrap();
    let v = layer.v.permute((0, 2, 1, 3)).unwrap();
    [k, v].map(|t| {
        let t = t.reshape((24, 3, 5)).unwrap().to_dtype(DType::F32).unwrap();
        t.to_vec3::<f32>().unwrap()
    })
}

#[test]
fn tokens_land_in_their_slots_and_nowhere_else() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let cache = PagedKvCache::allocate(&spec(dtype), CPU).unwrap();
        let (k, v) = (rows(3, 0.0), rows(3, 100.0));
        store(&cache, 1, (&k, &v), &[21, 4, 7]).unwrap();
        let round = |t: &Tensor| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
        let expected = [k, v].map(|t| round(&t).to_vec3::<f32>().unwrap());
        for (found, expected) in slots(&cache, 1).into_iter().zip(expected) {
            for (slot, found) in found.into_iter().enumerate() {
                match [21, 4, 7].iter().position(|&s| s == slot) {
                    Some(token) => assert_eq!(found, expected[token], "slot {slot}"),
                    None => assert!(found.concat().iter().all(|x| *x == 0.0), "slot {slot}"),
                }
            }
        }
        assert!(slots(&cache, 0)[0].concat().concat().iter().all(|x| *x == 0.0));
    }
}

#[test]
fn heads_of_a_fused_projection_are_stored_without_a_copy() {
    let cache = PagedKvCache::allocate(&spec(DType::F32), CPU).unwrap();
    let fused = rows(4, 0.0).reshape((2, 30)).unwrap();
    let rows = crate::Activations::from_tensor(&fused).unwrap();
    cache.store(0, rows.heads(0..3, 5), rows.heads(3..6, 5), &[0, 9]).unwrap();
    let [keys, values] = slots(&cache, 0);
    let expected = fused.reshape((2, 6, 5)).unwrap().to_vec3::<f32>().unwrap();
    assert_eq!(keys[0], expected[0][..3]);
    assert_eq!(keys[9], expected[1][..3]);
    assert_eq!(values[9], expected[1][3..]);
}

#[test]
fn copied_blocks_are_equal_in_every_layer() {
    let cache = PagedKvCache::allocate(&spec(DType::BF16), CPU).unwrap();
    for layer in 0..2 {
        store(&cache, layer, (&rows(2, 1.0), &rows(2, 2.0)), &[8, 10]).unwrap();
    }
    cache.copy_blocks(&[(2, 5), (5, 1)]).unwrap();
    for layer in 0..2 {
        for slots in slots(&cache, layer) {
            assert_eq!(slots[8..12], slots[20..24]);
            assert_eq!(slots[8..12], slots[4..8]);
            assert!(slots[8].concat().iter().any(|x| *x != 0.0));
        }
    }
    let error = cache.copy_blocks(&[(1, 6)]).unwrap_err();
    assert!(error.to_string().contains("6 blocks: 6"), "{error}");
}

#[test]
fn a_cache_takes_the_memory_it_is_given() {
    let block = spec(DType::BF16).block_bytes();
    assert_eq!(block, 2 * 2 * 4 * 3 * 5 * 2);
    let sized = spec(DType::BF16).for_memory(10 * block + block - 1).unwrap();
    assert_eq!((sized.num_blocks, sized.total_bytes()), (10, 10 * block));
    let error = spec(DType::BF16).for_memory(block).unwrap_err();
    assert!(error.to_string().contains("at least 960 bytes"), "{error}");
    assert!(KvCacheSpec { num_layers: 0, ..spec(DType::F32) }.for_memory(1 << 20).is_err());
}

#[test]
fn wrong_writes_are_refused() {
    let cache = PagedKvCache::allocate(&spec(DType::F32), CPU).unwrap();
    let good = rows(1, 0.0);
    for (k, v, slot, layer, expected) in [
        (rows(2, 0.0), good.clone(), 0, 0, "k must be (3, 5): (6, 5)"),
        (good.clone(), rows(2, 0.0), 0, 0, "v must be (3, 5)"),
        (good.clone(), good.clone(), 24, 0, "24 slots: 24"),
        (good.clone(), good, 0, 2, "2 layers: 2"),
    ] {
        let error = store(&cache, layer, (&k, &v), &[slot]).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` does not say `{expected}`");
    }
    assert!(PagedKvCache::allocate(&spec(DType::U8), CPU).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_cache_takes_memory_where_it_is_written_and_nowhere_else() {
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let spec = KvCacheSpec { num_blocks: 1 << 20, ..spec(dtype) };
        let before = resident();
        let cache = PagedKvCache::allocate(&spec, CPU).unwrap();
        let taken = resident().saturating_sub(before);
        let size = cache.spec().block_bytes() * cache.spec().num_blocks;
        assert!(taken < size / 4, "{dtype:?}: {taken}");
    }
}
