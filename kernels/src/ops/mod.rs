//! Operations on candle tensors, one per file.
//!
//! Activations are `f32`. Shapes and types are checked here, so that a wrong model ends in an
//! error that names the operation and never in wrong numbers.

mod embedding;
mod linear;
mod rms_norm;
mod rope;
mod silu_mul;
#[cfg(test)]
mod tests;

pub use embedding::embedding;
pub use linear::linear;
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope};
pub use silu_mul::silu_mul;

use candle_core::{DType, Result, Tensor, bail};

/// Refuses a tensor of another type than `dtype`.
fn check_dtype(op: &str, name: &str, tensor: &Tensor, dtype: DType) -> Result<()> {
    if tensor.dtype() == dtype {
        return Ok(());
    }
    bail!("{op}: {name} must be {dtype:?}: {:?}", tensor.dtype())
}
