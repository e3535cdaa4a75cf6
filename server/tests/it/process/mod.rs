//! The whole node: the real program, real packages, real processes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_packages;
mod command_line;
mod crash;
mod snapshots;
mod starter;
mod support;
mod workers;
