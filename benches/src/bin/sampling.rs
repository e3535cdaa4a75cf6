//! What picking tokens costs: microseconds for one row of logits, alone and in a batch.
//!
//! `cargo run --release -p pinion-benches --bin sampling`. Logits are normally distributed with a
//! deviation of 3, which leaves a nucleus (`top_p` 0.95) of some hundred tokens; the least and the
//! median of many passes are printed, each over all rows of the batch.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use pinion_engine::testing::SamplingStep;
use pinion_engine::{Request, RequestId, SamplingParams};

const PASSES: usize = 41;
const VOCABULARIES: [usize; 2] = [49_152, 151_936];
const BATCHES: [usize; 2] = [1, 16];

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "| parameters | vocabulary | rows | us a row, least | median |")?;
    writeln!(out, "|---|--:|--:|--:|--:|")?;
    for (name, sampling, logprobs) in cases() {
        for vocab_size in VOCABULARIES {
            let logits = logits(vocab_size * BATCHES[1]);
            for rows in BATCHES {
                let request = |id: usize| {
                    let seed = id as u64;
                    let sampling = SamplingParams { seed, ..sampling.clone() };
                    let base = Request::greedy(RequestId(seed), vec![0; 32], 100);
                    Request { sampling, logprobs, ..base }
                };
                let mut step = SamplingStep::new((0..rows).map(request).collect());
                let (least, median) = measure(|| {
                    black_box(step.sample(black_box(&logits[..rows * vocab_size]), vocab_size));
                });
                let [least, median] = [least, median].map(|micros| micros / rows as f64);
                writeln!(out, "| {name} | {vocab_size} | {rows} | {least:.0} | {median:.0} |")?;
            }
        }
    }
    Ok(())
}

fn cases() -> Vec<(&'static str, SamplingParams, Option<usize>)> {
    let greedy = SamplingParams::greedy();
    let warm = SamplingParams { temperature: 0.8, ..greedy.clone() };
    vec![
        ("greedy", greedy.clone(), None),
        ("greedy, top_logprobs 5", greedy.clone(), Some(5)),
        ("greedy, repetition_penalty 1.1", with(&greedy, |p| p.repetition_penalty = 1.1), None),
        ("temperature 0.8", warm.clone(), None),
        ("temperature 0.8, min_p 0.05", with(&warm, |p| p.min_p = 0.05), None),
        ("temperature 0.8, top_k 50", with(&warm, |p| p.top_k = Some(50)), None),
        ("temperature 0.8, top_p 0.95", with(&warm, |p| p.top_p = 0.95), None),
    ]
}

fn with(base: &SamplingParams, change: impl Fn(&mut SamplingParams)) -> SamplingParams {
    let mut params = base.clone();
    change(&mut params);
    params
}

/// Sums of uniform numbers, which are near enough to a normal distribution.
fn logits(count: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 3.0).collect()
}

fn measure(mut run: impl FnMut()) -> (f64, f64) {
    let mut micros: Vec<f64> = (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_unstable_by(f64::total_cmp);
    (micros[0], micros[PASSES / 2])
}
