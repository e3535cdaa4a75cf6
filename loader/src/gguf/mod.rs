//! GGUF: weights, configuration and tokenizer of a model in one file.
//!
//! The format is described in `docs/gguf.md` of ggml. Version 3 and its predecessor 2, which differs in
//! nothing that is read here, are supported in little-endian order.

mod config;
mod header;
mod kind;
mod metadata;
mod names;
mod reader;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;
mod value;

pub use header::Gguf;
pub use source::GgufSource;

pub(crate) use config::config_json;
pub(crate) use tokenizer::{texts, tokenizer_json};
