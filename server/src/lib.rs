//! The node: the only crate that starts a runtime, listens, and knows wire JSON.
#![forbid(unsafe_code)]

pub mod app;
pub mod config;
pub mod error;
pub mod ipc;
pub mod stream;
pub mod supervisor;
pub mod telemetry;
