//! The `pinion` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pinion_server::cli::main()
}
