//! Kills a node under load again and again: no stream that somebody saw begin may lose a token.
//!
//! `cargo run --release -p pinion-benches --bin crash -- --pinion target/release/pinion`
#![forbid(unsafe_code)]

#[path = "../../../server/tests/it/process/crash/harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use clap::Parser;
use harness::Crash;

/// Streams that outlive their node.
#[derive(Parser)]
struct Args {
    /// The pinion binary.
    #[arg(long, default_value = "target/release/pinion")]
    pinion: PathBuf,
    /// An empty directory for the streams.
    #[arg(long)]
    directory: PathBuf,
    /// Times that the node is killed.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Streams in each round.
    #[arg(long, default_value_t = 50)]
    streams: u64,
    /// Decides when it is killed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let Args { pinion: program, directory, rounds, streams, seed } = Args::parse();
    let started = Instant::now();
    let crash = Crash { program, directory: directory.clone(), rounds, streams, seed };
    let report = crash.run().map_err(|broken| anyhow!(broken))?;
    let mut written: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for record in pinion_server::journal::usage(&directory)? {
        written.entry(record.id).or_default().push(record.usage.completion_tokens);
    }
    for (id, tokens) in &report.usage {
        let found = written.get(id).map(Vec::as_slice).unwrap_or_default();
        ensure!(found == [*tokens], "usage of {id}: {found:?} is written, {tokens} was told");
    }
    writeln!(
        std::io::stdout(),
        "{rounds} rounds of {streams} streams in {:.0} s: {} streams, {} events, {} streams read on \
         from the next node, {} asked for again; none differs, every usage is written once",
        started.elapsed().as_secs_f64(),
        report.usage.len(),
        report.events,
        report.resumed,
        report.asked_again,
    )?;
    Ok(())
}
