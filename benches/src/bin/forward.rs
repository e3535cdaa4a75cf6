//! Forward passes of a model with random weights, without engine, processes or HTTP.
//!
//! `cargo run --release -p pinion-benches --bin forward -- CONFIG.json`: milliseconds of a prompt
//! and of decoding steps, and what share of the memory's bandwidth reading the weights takes.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::Parser;
use half::bf16;
use pinion_kernels::{AttentionBackend, AttnMetadata, KvCacheSpec, PagedAttention, PagedKvCache};
use pinion_models::{
    CausalLm, ForwardBatch, ForwardCtx, ModelConfig, TensorSource, Weights, build,
};

const BLOCK_SIZE: usize = 16;

/// Forward passes of a model with random weights.
#[derive(Parser)]
struct Args {
    /// The `config.json` of the model.
    config: PathBuf,
    /// Type of the matrices.
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// Type of the KV cache: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    kv_dtype: String,
    /// Tokens of the prompt; 0 for none.
    #[arg(long, default_value_t = 512)]
    prompt: usize,
    /// Decoding steps.
    #[arg(long, default_value_t = 64)]
    steps: usize,
    /// Sequences that decode together; several numbers run one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    seqs: Vec<usize>,
    /// Tokens that each sequence has before it decodes.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Times that everything is run; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Compute threads; 0 for one a CPU.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    pinion_kernels::pool::set_num_threads(args.threads);
    let text = std::fs::read_to_string(&args.config).context("cannot read the config")?;
    let config = ModelConfig::parse(&text)?;
    let start = Instant::now();
    let source = Arc::new(Random::new(&config)?);
    let model = build(&config, &Weights::new(source, Some(args.dtype.parse()?)))?;
    let spec = model.spec().clone();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}: {:.1} MB of {} weights, built in {:.2} s",
        pinion_kernels::cpu::describe(),
        spec.weight_bytes as f64 / 1e6,
        args.dtype,
        start.elapsed().as_secs_f64()
    )?;
    let most = args.seqs.iter().copied().max().unwrap_or(1);
    let kv_dtype = match args.kv_dtype.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        other => anyhow::bail!("unknown KV type: {other}"),
    };
    let mut runner = Runner::new(&*model, &args, most, kv_dtype)?;
    if args.prompt > 0 {
        let seconds = median(args.rounds, || runner.step(1, 0, args.prompt))?;
        writeln!(
            out,
            "prompt {:5}: {:8.2} ms, {:6.0} tokens/s",
            args.prompt,
            seconds * 1e3,
            args.prompt as f64 / seconds
        )?;
    }
    for &seqs in &args.seqs {
        for seq in 0..seqs {
            runner.step_of(seq..seq + 1, 0, args.context)?;
        }
        let seconds = median(args.rounds, || {
            let mut each = Vec::new();
            for step in 0..args.steps {
                each.push(runner.step(seqs, args.context + step, 1)?);
            }
            each.sort_by(f64::total_cmp);
            Ok(each[each.len() / 2])
        })?;
        writeln!(
            out,
            "decode {seqs:4} x: {:8.3} ms, {:6.1} tokens/s, {:5.1} GB/s of weights",
            seconds * 1e3,
            seqs as f64 / seconds,
            spec.weight_bytes as f64 / seconds / 1e9
        )?;
    }
    Ok(())
}

fn median(rounds: usize, mut run: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut seconds = (0..rounds).map(|_| run()).collect::<Result<Vec<_>>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[rounds / 2])
}

/// A model, its cache, and sequences of the same length in blocks of their own.
struct Runner<'a> {
    model: &'a dyn CausalLm,
    kv: PagedKvCache,
    blocks_per_seq: usize,
}

impl<'a> Runner<'a> {
    fn new(model: &'a dyn CausalLm, args: &Args, seqs: usize, dtype: DType) -> Result<Self> {
        let spec = model.spec();
        let blocks_per_seq = args.prompt.max(args.context + args.steps).div_ceil(BLOCK_SIZE);
        let kv = KvCacheSpec {
            num_layers: spec.num_layers,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            block_size: BLOCK_SIZE,
            num_blocks: 1 + seqs * blocks_per_seq,
            dtype,
        };
        let kv = PagedKvCache::allocate(&kv, &Device::Cpu)?;
        Ok(Self { model, kv, blocks_per_seq })
    }

    fn step(&mut self, seqs: usize, first: usize, len: usize) -> Result<f64> {
        self.step_of(0..seqs, first, len)
    }

    /// Seconds of one step in which each sequence gets `len` tokens from position `first` on.
    fn step_of(&mut self, seqs: std::ops::Range<usize>, first: usize, len: usize) -> Result<f64> {
        let vocab = self.model.spec().vocab_size;
        let start = Instant::now();
        let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut attn = AttnMetadata { cu_seqlens_q: vec![0], ..AttnMetadata::default() };
        for seq in seqs {
            let base = 1 + seq * self.blocks_per_seq;
            ids.extend((first..first + len).map(|i| ((i * 131 + seq * 29) % vocab) as u32));
            positions.extend((first..first + len).map(|i| i as u32));
            let slot = |i| (base * BLOCK_SIZE + i) as u32;
            attn.slot_mapping.extend((first..first + len).map(slot));
            attn.cu_seqlens_q.push(ids.len() as u32);
            attn.context_lens.push((first + len) as u32);
            attn.block_tables.push((0..self.blocks_per_seq).map(|i| (base + i) as u32).collect());
            last.push(ids.len() as u32 - 1);
        }
        let batch = ForwardBatch {
            input_ids: Tensor::new(ids, &Device::Cpu)?,
            positions: Tensor::new(positions, &Device::Cpu)?,
            logits_indices: Tensor::new(last, &Device::Cpu)?,
            attn,
        };
        let attention = PagedAttention;
        attention.plan(&batch.attn)?;
        let cx = ForwardCtx { batch: &batch, kv: &self.kv, attention: &attention };
        let logits = self.model.forward(&cx)?;
        std::hint::black_box(&logits);
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Tensors made when they are asked for.
struct Random(HashMap<String, Vec<usize>>);

impl Random {
    fn new(config: &ModelConfig) -> Result<Self> {
        let shapes = config.tensors()?.into_iter().map(|tensor| (tensor.name, tensor.shape));
        Ok(Self(shapes.collect()))
    }
}

impl TensorSource for Random {
    fn load(&self, name: &str) -> candle_core::Result<Option<Tensor>> {
        let Some(shape) = self.0.get(name) else { return Ok(None) };
        let width = shape.last().copied().unwrap_or(1) as f32;
        let (offset, scale) = if name.ends_with("norm.weight") {
            (1.0, 0.1)
        } else {
            (0.0, 3f32.sqrt() / width.sqrt())
        };
        let mut state =
            name.bytes().fold(1u64, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()))
                | 1;
        let mut value = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bf16::from_f32(offset + scale * ((state >> 40) as f32 / 8_388_608.0 - 1.0))
        };
        let values: Vec<bf16> = (0..shape.iter().product()).map(|_| value()).collect();
        Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).map(Some)
    }
}
