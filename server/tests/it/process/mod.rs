//! The whole node: the real program, real packages, real processes.

mod bad_packages;
mod command_line;
// mod starter;
mod support;
mod workers;
