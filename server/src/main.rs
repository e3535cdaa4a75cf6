//! The `pinion` command.
#![forbid(unsafe_code)]

fn main() {}
