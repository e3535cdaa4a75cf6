//! Project tasks: `cargo xtask tidy`, `cargo xtask ci`.

fn main() {}
