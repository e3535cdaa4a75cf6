//! Where the weights of a package come from.

mod checkpoint;
mod error;
mod header;
mod index;
mod safetensors;
#[cfg(test)]
mod tests;

use pinion_models::TensorSource;

pub use checkpoint::{Checkpoint, find};
pub use error::WeightsError;
pub use safetensors::SafetensorsSource;

/// A checkpoint that can be compared with a model before any weight is read.
pub trait CheckpointSource: TensorSource {
    /// Shape of a tensor, without reading it.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Refuses a tensor that is there in a type that is not loaded.
    fn check_dtype(&self, name: &str) -> Result<(), WeightsError>;

    /// Name of the type in which matrices are kept where nobody says.
    fn own_type(&self) -> String;
}
