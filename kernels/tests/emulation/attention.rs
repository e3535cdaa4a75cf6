//! Attention over a paged cache.

use candle_core::DType;
use pinion_kernels::{
    Activations, AttentionParams, AttnMetadata, Device, KvCacheSpec, PagedKvCache, ops,
};

use super::{assert_close, bits, device, ids, on_host, rows};

const BLOCK: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Shape {
    kv: usize,
    groups: usize,
    dim: usize,
    dtype: DType,
}

impl Shape {
    fn heads(self) -> usize {
        self.kv * self.groups
    }

    fn width(self) -> usize {
        (self.heads() + 2 * self.kv) * self.dim
    }

    fn cache(self, device: &Device) -> PagedKvCache {
        let spec = KvCacheSpec {
            num_layers: 1,
            num_kv_heads: self.kv,
            head_dim: self.dim,
            block_size: BLOCK,
            num_blocks: 120,
            dtype: self.dtype,
        };
        PagedKvCache::allocate_on(&spec, device).unwrap()
    }
}

/// A step: of each sequence, the tokens from `start` to `end`. Blocks are scattered.
fn step(parts: &[(usize, usize, usize)]) -> AttnMetadata {
    let mut meta = AttnMetadata { cu_seqlens_q: vec![0], ..AttnMetadata::default() };
    for &(seq, start, end) in parts {
        let block = |index: usize| (seq * 39 + index * 7 % 39 + 1) as u32;
        let slot = |position: usize| block(position / BLOCK) * 16 + (position % BLOCK) as u32;
        meta.slot_mapping.extend((start..end).map(slot));
        meta.cu_seqlens_q.push(meta.slot_mapping.len() as u32);
        meta.context_lens.push(end as u32);
        meta.block_tables.push((0..end.div_ceil(BLOCK)).map(block).collect());
    }
    meta
}

/// Attends on a device with queries, keys and values of their own for each sequence and position.
fn attend(
    device: &Device,
    cache: &PagedKvCache,
    shape: Shape,
    parts: &[(usize, usize, usize)],
    params: AttentionParams<'_>,
) -> Activations {
    let source = rows(9, 4 * 700, shape.width());
    let wanted: Vec<u32> = parts
        .iter()
        .flat_map(|&(seq, start, end)| (start..end).map(move |at| (seq * 700 + at) as u32))
        .collect();
    let qkv = ops::select_rows(&source, &ids(&wanted)).unwrap().copy_to(device).unwrap();
    let (attention, meta) = (device.attention(), step(parts));
    attention.plan(&meta).unwrap();
    attention.forward((cache, &meta), 0, &qkv, params).unwrap()
}

fn params(shape: Shape) -> AttentionParams<'static> {
    AttentionParams::new(1.0 / (shape.dim as f32).sqrt())
}

#[test]
fn attention_is_that_of_the_cpu() {
    let Some(gpu) = device() else { return };
    let shapes = [
        Shape { kv: 2, groups: 1, dim: 64, dtype: DType::F32 },
        Shape { kv: 1, groups: 3, dim: 96, dtype: DType::BF16 },
        Shape { kv: 2, groups: 4, dim: 128, dtype: DType::BF16 },
        Shape { kv: 1, groups: 8, dim: 192, dtype: DType::F32 },
        Shape { kv: 1, groups: 20, dim: 64, dtype: DType::BF16 },
        Shape { kv: 1, groups: 2, dim: 256, dtype: DType::BF16 },
        Shape { kv: 1, groups: 2, dim: 48, dtype: DType::F32 },
        Shape { kv: 1, groups: 70, dim: 32, dtype: DType::BF16 },
        Shape { kv: 2, groups: 2, dim: 100, dtype: DType::BF16 },
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let sinks: Vec<f32> = (0..shape.heads()).map(|head| head as f32 * 0.1).collect();
        let plain = params(shape);
        let windowed = AttentionParams { sliding_window: Some(40), ..plain };
        let capped = AttentionParams { soft_cap: Some(0.5), ..plain };
        let sunk = AttentionParams { sinks: Some(&sinks), sliding_window: Some(270), ..plain };
        let special = [("window", windowed), ("cap", capped), ("sinks", sunk)][index % 3];
        for (name, params) in [("plain", plain), special] {
            let (cpu_cache, gpu_cache) = (shape.cache(&Device::Cpu), shape.cache(&gpu));
            let steps: [&[_]; 3] = [
                &[(0, 0, 20), (1, 0, 265)],
                &[(0, 20, 21), (1, 265, 266), (2, 0, 1)],
                &[(1, 266, 274)],
            ];
            for parts in steps {
                let expected = attend(&Device::Cpu, &cpu_cache, shape, parts, params);
                let found = attend(&gpu, &gpu_cache, shape, parts, params);
                assert_close(&found, &expected, 2e-5, &format!("{shape:?} {name} {parts:?}"));
            }
        }
    }
}

#[test]
fn chunks_decoding_and_company_change_no_bit() {
    let Some(gpu) = device() else { return };
    let shapes = [
        Shape { kv: 2, groups: 2, dim: 64, dtype: DType::BF16 },
        Shape { kv: 1, groups: 4, dim: 128, dtype: DType::F32 },
        Shape { kv: 1, groups: 3, dim: 96, dtype: DType::BF16 },
    ];
    for shape in shapes {
        for window in [None, Some(100)] {
            let params = AttentionParams { sliding_window: window, ..params(shape) };
            let whole = attend(&gpu, &shape.cache(&gpu), shape, &[(1, 0, 290)], params);
            let whole = bits(&whole);
            let width = shape.heads() * shape.dim;
            let cache = shape.cache(&gpu);
            attend(&gpu, &cache, shape, &[(0, 0, 40), (1, 0, 250)], params);
            let chunk = bits(&attend(&gpu, &cache, shape, &[(0, 40, 41), (1, 250, 287)], params));
            let is_same = chunk[width..] == whole[250 * width..287 * width];
            assert!(is_same, "a chunk {shape:?} {window:?}");
            for at in 287..290 {
                let one = bits(&attend(&gpu, &cache, shape, &[(1, at, at + 1)], params));
                assert!(one == whole[at * width..(at + 1) * width], "token {at} {shape:?}");
            }
        }
    }
}

#[test]
fn blocks_are_copied_with_their_keys_and_values() {
    let Some(gpu) = device() else { return };
    let shape = Shape { kv: 2, groups: 2, dim: 64, dtype: DType::BF16 };
    let cache = shape.cache(&gpu);
    attend(&gpu, &cache, shape, &[(0, 0, 15)], params(shape));
    let expected = on_host(&attend(&gpu, &cache, shape, &[(0, 15, 16)], params(shape)));
    // The first block of sequence 1 gets the keys of the first block of sequence 0.
    let block = |seq| step(&[(seq, 0, 1)]).block_tables[0][0];
    cache.copy_blocks(&[(block(0), block(1))]).unwrap();
    let mut meta = step(&[(0, 15, 16)]);
    meta.block_tables[0][0] = block(1);
    meta.slot_mapping[0] = block(1) * 16 + 15;
    let source = ops::select_rows(&rows(9, 4 * 700, shape.width()), &ids(&[15])).unwrap();
    let attention = gpu.attention();
    attention.plan(&meta).unwrap();
    let qkv = source.copy_to(&gpu).unwrap();
    let found = attention.forward((&cache, &meta), 0, &qkv, params(shape)).unwrap();
    assert_eq!(on_host(&found), expected);
    assert!(cache.copy_blocks(&[(0, 120)]).is_err());
}
