//! `pinion completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::CliError;

/// Prints completions for a shell.
///
/// Example: `pinion completions bash > /etc/bash_completion.d/pinion`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

/// Runs the command.
#[expect(clippy::unnecessary_wraps, reason = "the shape of every command")]
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "pinion", &mut script);
    super::terminal::stream(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
