//! What a GPU reaches: kernels against its bandwidth, and decoding of whole models.
//!
//! `gpu --device cuda:0 --json gpu.json`: one table on stdout, and the same figures as JSON. Built
//! and carried by `scripts/cuda/suite.sh`.
#![forbid(unsafe_code)]

mod decode;
mod kernels;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use pinion_kernels::{Device, Gpu};
use serde_json::{Value, json};

/// What a GPU reaches: kernels against its bandwidth, and decoding of whole models.
#[derive(Parser)]
struct Args {
    /// `cuda:N`.
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// Where the figures go, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A hundredth of the sizes: whether it runs, not how fast.
    #[arg(long)]
    small: bool,
}

/// A measured line.
struct Line {
    name: String,
    /// Seconds of one call.
    seconds: f64,
    /// Bytes that must be read and written.
    bytes: f64,
    /// Floating-point operations.
    operations: f64,
    /// Tokens that came out.
    tokens: f64,
}

/// Where lines go, and what bounds them.
struct Report {
    rate: f64,
    lines: Vec<Value>,
}

impl Report {
    fn add(&mut self, line: &Line) -> Result<()> {
        let Line { name, seconds, bytes, operations, tokens } = line;
        let (rate, flops) = (bytes / seconds, operations / seconds);
        let mut out = std::io::stdout();
        let share = rate / self.rate * 100.0;
        write!(
            out,
            "{name:<52} {:>10.1} us {:>8.1} GB/s {share:>5.1}%",
            seconds * 1e6,
            rate / 1e9
        )?;
        match tokens {
            0.0 => writeln!(out, " {:>8.2} TFLOP/s", flops / 1e12)?,
            tokens => writeln!(out, " {:>8.1} tokens/s", tokens / seconds)?,
        }
        self.lines.push(json!({
            "name": name, "microseconds": seconds * 1e6, "gigabytes_per_second": rate / 1e9,
            "share_of_copy": rate / self.rate, "teraflops": flops / 1e12,
            "tokens_per_second": tokens / seconds,
        }));
        Ok(())
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = Device::open(&args.device)?.context("no such device")?;
    let Device::Gpu(gpu) = &device else { anyhow::bail!("not a gpu: {}", args.device) };
    let scale = if args.small { 100 } else { 1 };
    let rate = gpu.copy_rate((2 << 30) / scale / scale, 20)?;
    let (free, total) = gpu.memory()?;
    let mut out = std::io::stdout();
    writeln!(out, "{}: {:.1} of {:.1} GB free", gpu.name(), free as f64 / 1e9, total as f64 / 1e9)?;
    writeln!(out, "a copy reads and writes {:.1} GB/s; shares are of that", rate / 1e9)?;
    let mut report = Report { rate, lines: Vec::new() };
    kernels::measure(&device, scale, &mut report)?;
    decode::measure(&device, args.small, &mut report)?;
    if let Some(path) = &args.json {
        let figures = json!({
            "device": gpu.name(), "copy_gigabytes_per_second": rate / 1e9, "lines": report.lines,
        });
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("cannot write: {}", path.display()))?;
    }
    Ok(())
}

/// Seconds of one call, the device idle before and after.
fn time(gpu: &Gpu, times: u32, mut run: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    run()?;
    gpu.synchronize()?;
    let started = std::time::Instant::now();
    for _ in 0..times {
        run()?;
    }
    gpu.synchronize()?;
    Ok(started.elapsed().as_secs_f64() / f64::from(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_runs_where_the_kernels_do() {
        let Some(gpu) = Gpu::for_tests() else { return };
        let device = Device::Gpu(gpu);
        let mut report = Report { rate: 1e9, lines: Vec::new() };
        kernels::measure(&device, 1000, &mut report).unwrap();
        decode::measure(&device, true, &mut report).unwrap();
        assert!(report.lines.len() > 50, "{}", report.lines.len());
        for line in report.lines {
            assert!(line["microseconds"].as_f64().is_some_and(|micros| micros > 0.0), "{line}");
        }
    }
}
