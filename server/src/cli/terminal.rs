//! What commands print: errors, notes, progress. The only file that writes to standard output and
//! error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this file is for")]

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use super::CliError;
use crate::config;
use crate::ipc::LoadStage;
use crate::supervisor::{Package, PackageState};

/// Sends logs to standard error; `RUST_LOG` says which, `PINION_LOG_FORMAT=json` how.
pub(crate) fn init_tracing() {
    let filter = config::env_var("RUST_LOG").unwrap_or_else(|| "warn".to_owned());
    let json = config::env_var("PINION_LOG_FORMAT").is_some_and(|format| format == "json");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second subscriber in one process is a test's; the first one stays.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

/// Prints an error and its hint.
pub(crate) fn report(error: &CliError) {
    eprintln!("error: {error}");
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {hint}");
    }
}

/// Prints a line for people on standard error.
pub(crate) fn note(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
}

/// Prints a line of the command's result on standard output.
pub(crate) fn result(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints a part of the command's result, as it comes.
pub(crate) fn stream(text: &str) {
    use std::io::Write;
    print!("{text}");
    // A reader that is gone is noticed by the next `print`.
    let _ = std::io::stdout().flush();
}

/// Shows a package's loading until it is ready or failed: a bar on a terminal, else nothing.
pub(crate) async fn show_loading(package: Package) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(
        "{spinner} {msg:24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut states = package.watch_state();
    loop {
        match &*states.borrow_and_update() {
            PackageState::Loading { stage, done, total } => {
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(format!("{}: {}", package.name(), stage_name(*stage)));
            }
            PackageState::Restarting { .. } => {}
            _ => break,
        }
        if states.changed().await.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
}

fn stage_name(stage: LoadStage) -> &'static str {
    match stage {
        LoadStage::Inspecting => "inspecting",
        LoadStage::Weights => "weights",
        LoadStage::Warming => "warming up",
    }
}

/// A bar that counts to `total`; hidden where standard error is no terminal.
pub(crate) fn progress(total: u64, unit: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(unit);
    bar
}
