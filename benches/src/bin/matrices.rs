//! The matrix products of a model alone, with weights that share no memory.
//!
//! `cargo run --release -p pinion-benches --bin matrices`: for each type and number of rows the
//! time of all linears of a forward pass, the weights read a second, the share of the memory's
//! measured bandwidth that this is, and operations a second. (A model that fits the last cache can
//! read faster than memory.) Above 32 rows the output layer gets one row, as in a prompt.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use clap::{Parser, ValueEnum};
use pinion_kernels::{Activations, AlignedBytes, PackedTensor, WeightType, ops, pool};

/// The matrix products of a model alone.
#[derive(Parser)]
struct Args {
    /// Whose matrices.
    #[arg(long, value_enum, default_value = "qwen3")]
    shape: Shape,
    /// Types of the weights.
    #[arg(long, value_delimiter = ',', default_values = ["bf16", "q8_0", "q4_0", "q4_k", "q5_k", "q6_k"])]
    kinds: Vec<String>,
    /// Rows of activations.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 512])]
    rows: Vec<usize>,
    /// Compute threads; 0 for one a CPU.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Passes; the median counts.
    #[arg(long, default_value_t = 7)]
    passes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// SmolLM2-135M.
    Smollm2,
    /// Qwen3-0.6B.
    Qwen3,
}

impl Shape {
    /// Layers, their matrices as `[out, in]`, and the output layer.
    fn matrices(self) -> (usize, [[usize; 2]; 4], [usize; 2]) {
        match self {
            Self::Smollm2 => (30, [[960, 576], [576, 576], [3072, 576], [576, 1536]], [49152, 576]),
            Self::Qwen3 => {
                (28, [[4096, 1024], [1024, 2048], [6144, 1024], [1024, 3072]], [151_936, 1024])
            }
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    pool::set_num_threads(args.threads);
    let mut out = std::io::stdout();
    let bandwidth = bandwidth(pool::num_threads());
    let machine = pinion_kernels::cpu::describe();
    writeln!(out, "{machine}; memory reads {bandwidth:.1} GB/s")?;
    writeln!(out, "| type | rows | ms | rows/s | GB/s | of memory | Gop/s |")?;
    writeln!(out, "|---|--:|--:|--:|--:|--:|--:|")?;
    for kind in &args.kinds {
        let kind: WeightType = kind.parse()?;
        let model = Model::new(args.shape, kind)?;
        for &rows in &args.rows {
            let mut seconds =
                (0..args.passes).map(|_| model.pass(rows)).collect::<Result<Vec<_>>>()?;
            seconds.sort_by(f64::total_cmp);
            let seconds = seconds[args.passes / 2];
            let rate = model.bytes as f64 / seconds / 1e9;
            writeln!(
                out,
                "| {kind} | {rows} | {:.2} | {:.0} | {rate:.1} | {:.0} % | {:.0} |",
                seconds * 1e3,
                rows as f64 / seconds,
                rate / bandwidth * 100.0,
                model.operations(rows) / seconds / 1e9
            )?;
        }
    }
    Ok(())
}

struct Model {
    layers: Vec<PackedTensor>,
    output: PackedTensor,
    bytes: usize,
}

impl Model {
    fn new(shape: Shape, kind: WeightType) -> Result<Self> {
        let (num_layers, matrices, output) = shape.matrices();
        let weights = |[rows, cols]: [usize; 2]| {
            let mut bytes = AlignedBytes::zeroed(PackedTensor::packed_len(kind, rows, cols)?);
            // Any codes do; as f16 and bf16 these bytes are small numbers.
            bytes.as_mut_slice().fill(0x2c);
            PackedTensor::from_parts(kind, rows, cols, bytes)
        };
        let layers: Vec<_> =
            (0..num_layers).flat_map(|_| matrices).map(weights).collect::<Result<_, _>>()?;
        let output = weights(output)?;
        let bytes = layers.iter().chain([&output]).map(|weight| weight.bytes().len()).sum();
        Ok(Self { layers, output, bytes })
    }

    /// Seconds of all products.
    fn pass(&self, rows: usize) -> Result<f64> {
        let input = |rows: usize, weight: &PackedTensor| {
            let values: Vec<_> =
                (0..rows * weight.cols()).map(|i| (i * 7919 % 1000) as f32 * 1e-3 - 0.5).collect();
            Activations::from_tensor(&Tensor::from_vec(
                values,
                (rows, weight.cols()),
                &Device::Cpu,
            )?)
        };
        let inputs =
            self.layers[..4].iter().map(|w| input(rows, w)).collect::<Result<Vec<_>, _>>()?;
        let last = input(Self::output_rows(rows), &self.output)?;
        let start = Instant::now();
        for (index, weight) in self.layers.iter().enumerate() {
            black_box(ops::linear(&inputs[index % 4], weight, None)?);
        }
        black_box(ops::linear(&last, &self.output, None)?);
        Ok(start.elapsed().as_secs_f64())
    }

    fn output_rows(rows: usize) -> usize {
        if rows > 32 { 1 } else { rows }
    }

    fn operations(&self, rows: usize) -> f64 {
        let size = |weight: &PackedTensor| 2.0 * (weight.rows() * weight.cols()) as f64;
        let layers: f64 = self.layers.iter().map(size).sum();
        layers * rows as f64 + size(&self.output) * Self::output_rows(rows) as f64
    }
}

/// Gigabytes a second that all threads read together; the best of several passes.
fn bandwidth(threads: usize) -> f64 {
    let words = vec![1u64; 64 << 20];
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads)) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        8.0 * words.len() as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| pass()).fold(0.0, f64::max)
}

/// Sums side by side, so that the reads and not the additions are what takes time.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in words.chunks_exact(32) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
