//! Simulates hours of mixed load on the engine, and checks every invariant after every step.
//!
//! `cargo run --release -p pinion-benches --bin simulation -- --hours 24`. Before each engine
//! a line says which options repeat its run, should it panic.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Parser;
use pinion_engine::testing::simulate;

#[derive(Parser)]
#[command(about = "Simulates hours of mixed load on the engine")]
struct Options {
    /// Hours of load in all.
    #[arg(long, default_value_t = 24.0)]
    hours: f64,
    /// Engines of different sizes that share them, each with a seed of its own.
    #[arg(long, default_value_t = 24)]
    engines: u64,
    /// Seed of the first engine; the others follow it.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> std::io::Result<()> {
    let Options { hours, engines, seed } = Options::parse();
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(()) % 1_000_000);
    let hours_each = hours / engines.max(1) as f64;
    let time = Duration::from_secs_f64(hours_each * 3600.0);
    let mut out = std::io::stdout();
    let started = Instant::now();
    for seed in seed..seed + engines {
        writeln!(out, "--engines 1 --hours {hours_each} --seed {seed}")?;
        writeln!(out, "  {:?}", simulate(seed, time))?;
    }
    writeln!(out, "{hours} hours in {:.0?}", started.elapsed())
}
