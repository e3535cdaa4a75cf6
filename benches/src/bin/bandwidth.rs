//! Read bandwidth of this machine's memory: what bounds single-stream decoding.
//!
//! `cargo run --release -p pinion-benches --bin bandwidth`: for a size that fits no cache, gigabytes
//! per second with one thread and with all, the median of several passes.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

const BYTES: usize = 1 << 30;
const PASSES: usize = 9;

fn main() -> std::io::Result<()> {
    let words: Vec<u64> = (0..(BYTES / 8) as u64).collect();
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut out = std::io::stdout();
    for threads in [1, all] {
        let mut seconds: Vec<f64> = (0..PASSES).map(|_| pass(&words, threads)).collect();
        seconds.sort_unstable_by(f64::total_cmp);
        let rate = BYTES as f64 / seconds[PASSES / 2] / 1e9;
        writeln!(out, "{threads} threads: {rate:.1} GB/s")?;
    }
    Ok(())
}

/// Seconds to read every word once.
fn pass(words: &[u64], threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads)) {
            scope.spawn(|| black_box(sum(part)));
        }
    });
    start.elapsed().as_secs_f64()
}

/// Eight sums side by side, so that the reads and not the additions are what takes time.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 8];
    for chunk in words.chunks_exact(8) {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
