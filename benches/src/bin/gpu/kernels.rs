//! Kernels alone.

use anyhow::Result;
use candle_core::{DType, Device as Host, Tensor};
use pinion_kernels::{
    Activations, AttentionParams, AttnMetadata, Device, KvCacheSpec, PackedTensor, PagedKvCache,
    WeightType, ops,
};

use super::{Line, Report, time};

/// Matrices of Llama 3.1 8B and of Qwen3 0.6B, `[out, in]`.
const MATRICES: [[usize; 2]; 6] =
    [[6144, 4096], [28672, 4096], [4096, 14336], [128_256, 4096], [6144, 1024], [1024, 3072]];
const KINDS: [WeightType; 4] =
    [WeightType::Bf16, WeightType::Q8_0, WeightType::Q4K, WeightType::Q6K];
const BLOCK: usize = 16;

pub(super) fn measure(device: &Device, scale: usize, report: &mut Report) -> Result<()> {
    for kind in KINDS {
        for [rows, cols] in MATRICES {
            let rows = (rows / scale).max(16);
            let cols = if scale == 1 { cols } else { 256 };
            // Small sizes show that it runs.
            let batches: &[usize] = if scale == 1 { &[1, 8, 32, 512] } else { &[1, 33] };
            for &n in batches {
                report.add(&linear(device, kind, [rows, cols], n)?)?;
            }
        }
    }
    for (rows, width) in [(1, 4096), (512, 4096)] {
        let x = rows_of(rows, width)?.copy_to(device)?;
        let weight = Tensor::ones(width, DType::F32, &Host::Cpu)?;
        let Device::Gpu(gpu) = device else { anyhow::bail!("not a gpu") };
        let seconds = time(gpu, 20, || ops::rms_norm(&x, &weight, 1e-5).map(drop))?;
        let bytes = (2 * rows * width * 4) as f64;
        let name = format!("rms_norm [{rows}, {width}]");
        report.add(&Line { name, seconds, bytes, operations: 0.0, tokens: 0.0 })?;
    }
    let shapes = [(1, 2048, 1), (32, 2048, 1), (1, 16384, 1), (1, 2048, 2048)];
    for (seqs, context, queries) in shapes {
        let context: usize = (context / scale).max(1);
        let queries = context.min(queries);
        report.add(&attention(device, seqs, context, queries)?)?;
    }
    Ok(())
}

fn rows_of(rows: usize, width: usize) -> Result<Activations> {
    let values: Vec<f32> = (0..rows * width).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    Ok(Activations::from_tensor(&Tensor::from_vec(values, (rows, width), &Host::Cpu)?)?)
}

fn linear(device: &Device, kind: WeightType, [rows, cols]: [usize; 2], n: usize) -> Result<Line> {
    let Device::Gpu(gpu) = device else { anyhow::bail!("not a gpu") };
    let len = PackedTensor::packed_len(kind, rows, cols)?;
    // Any bits are weights; small ones keep sums finite.
    let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 47) as u8).collect();
    let weight = PackedTensor::from_parts(kind, rows, cols, bytes.as_slice())?;
    let (weight, x) = (device.place(weight)?, rows_of(n, cols)?.copy_to(device)?);
    let seconds = time(gpu, 20, || ops::linear(&x, &weight, None).map(drop))?;
    Ok(Line {
        name: format!("linear {kind} [{rows}, {cols}] times {n}"),
        seconds,
        bytes: (len + 4 * n * (rows + cols)) as f64,
        operations: 2.0 * (rows * cols * n) as f64,
        tokens: 0.0,
    })
}

/// Sequences of `context` tokens of which the last `queries` are computed; 32 heads of 128 over 8.
fn attention(device: &Device, seqs: usize, context: usize, queries: usize) -> Result<Line> {
    let Device::Gpu(gpu) = device else { anyhow::bail!("not a gpu") };
    let (heads, kv_heads, dim) = (32, 8, 128);
    let blocks = context.div_ceil(BLOCK);
    let spec = KvCacheSpec {
        num_layers: 1,
        num_kv_heads: kv_heads,
        head_dim: dim,
        block_size: BLOCK,
        num_blocks: seqs * blocks + 1,
        dtype: DType::BF16,
    };
    let cache = PagedKvCache::allocate_on(&spec, device)?;
    let mut meta = AttnMetadata { cu_seqlens_q: vec![0], ..AttnMetadata::default() };
    for seq in 0..seqs {
        let first = (seq * blocks + 1) as u32;
        let slots = context - queries..context;
        meta.slot_mapping.extend(slots.map(|at| first * BLOCK as u32 + at as u32));
        meta.cu_seqlens_q.push(((seq + 1) * queries) as u32);
        meta.context_lens.push(context as u32);
        meta.block_tables.push((first..first + blocks as u32).collect());
    }
    let qkv = rows_of(seqs * queries, (heads + 2 * kv_heads) * dim)?.copy_to(device)?;
    let attention = device.attention();
    attention.plan(&meta)?;
    let params = AttentionParams::new(1.0 / (dim as f32).sqrt());
    let seconds = time(gpu, 10, || attention.forward((&cache, &meta), 0, &qkv, params).map(drop))?;
    let keys: usize = (context - queries + 1..=context).sum();
    Ok(Line {
        name: format!("attention, {seqs} of {queries} queries, {context} keys"),
        seconds,
        bytes: (seqs * context * kv_heads * dim * 2 * 2) as f64,
        operations: 4.0 * (seqs * keys * heads * dim) as f64,
        tokens: 0.0,
    })
}
