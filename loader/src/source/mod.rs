//! Where the weights of a package come from.

mod checkpoint;
mod error;
mod header;
mod index;
mod safetensors;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, find};
pub use error::WeightsError;
pub use safetensors::SafetensorsSource;
