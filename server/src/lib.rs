//! The node: the only crate that starts a runtime, listens, and knows wire JSON.
#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod cog_inputs;
pub mod config;
pub mod error;
pub mod http;
pub mod ipc;
pub mod journal;
pub mod outbound;
pub mod routes;
pub mod stream;
pub mod supervisor;
pub mod telemetry;
mod tool_parser;
mod wire;
pub mod worker;
