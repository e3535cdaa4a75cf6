//! The numbered event log of one generation.

mod buffer;
#[cfg(test)]
mod tests;

pub use buffer::{Cursor, StreamBuffer};
