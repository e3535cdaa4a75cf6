//! The command line: one file a command.

mod bench;
mod chat;
mod check;
mod client;
mod completions;
mod demo;
mod error;
mod init;
mod local;
mod node;
mod packages;
mod run;
mod serve;
mod snapshot;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;

/// Serves the models that you bring.
#[derive(Debug, Parser)]
#[command(name = "pinion", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Run(run::Args),
    Chat(chat::Args),
    Check(check::Args),
    Bench(bench::Args),
    Init(init::Args),
    Snapshot(snapshot::Args),
    Completions(completions::Args),
    /// Serves one package over the socket that is its standard input; started by `serve`.
    #[command(hide = true)]
    Worker,
}

/// Parses the command line, runs the command, and says how it went: 0 done, 1 failed, 2 wrong
/// usage, 3 not found.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that cannot be printed has no reader.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    terminal::init_tracing();
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Worker => return crate::worker::main(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            terminal::report(&error);
            error.exit_code()
        }
    }
}
