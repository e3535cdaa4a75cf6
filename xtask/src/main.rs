//! Project tasks: `cargo xtask tidy`, `cargo xtask ci`.
#![forbid(unsafe_code)]

mod ci;
mod tidy;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

const USAGE: &str = "\
usage: cargo xtask <task>

  tidy   what the compiler cannot see: arrows, sizes, confined words, documents
  ci     everything that CI runs, on this machine (.ci/run)
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let outcome = match task.as_deref() {
        Some("tidy") => run_tidy(),
        Some("ci") => ci::run(&root()),
        Some("help" | "--help" | "-h") => write(USAGE).map(|()| ExitCode::SUCCESS),
        _ => write(USAGE).map(|()| ExitCode::from(2)),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_tidy() -> Result<ExitCode> {
    let tree = tidy::Tree::read(&root())?;
    let findings = tidy::check(&tree);
    for finding in &findings {
        write(&format!("{finding}\n"))?;
    }
    write(&tidy::summary(&tree, findings.len()))?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

fn write(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}
