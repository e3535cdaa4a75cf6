//! Operations on activations, one per file.
//!
//! Activations are `f32`; vectors of weights are candle tensors. Shapes and types are checked here, so that a wrong model ends in an
//! error that names the operation and never in wrong numbers.

mod add_scaled;
mod clamped_swiglu;
mod embedding;
mod gelu;
mod grouped_linear;
mod layer_norm;
mod linear;
mod rms_norm;
mod rope;
mod routes;
mod select_rows;
mod silu_mul;
mod soft_cap;
#[cfg(test)]
mod tests;

pub use add_scaled::{add_scaled, scale, scale_by_sigmoid};
pub use clamped_swiglu::clamped_swiglu;
pub use embedding::embedding;
pub use gelu::{Gelu, gelu, gelu_mul};
pub use grouped_linear::{GroupWeight, grouped_linear, linear_heads};
pub use layer_norm::layer_norm;
pub use linear::{add_linear, linear};
pub use rms_norm::{rms_norm, rms_norm_columns, rms_norm_heads};
pub use rope::{RopeTable, rope};
pub use routes::{RouterGroups, RouterParams, Routes, Scoring, route};
pub use select_rows::select_rows;
pub use silu_mul::silu_mul;
pub use soft_cap::soft_cap;

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::Activations;
use crate::cpu::Cpu;

/// Work of one chunk of rows, in multiply-adds: some microseconds.
const CHUNK_WORK: usize = 1 << 17;

/// Refuses a tensor of another type than `dtype`.
fn check_dtype(op: &str, name: &str, tensor: &Tensor, dtype: DType) -> Result<()> {
    if tensor.dtype() == dtype {
        return Ok(());
    }
    bail!("{op}: {name} must be {dtype:?}: {:?}", tensor.dtype())
}

/// Refuses heads that the rows of `x` do not have.
fn check_heads(op: &str, x: &Activations, heads: &Range<usize>, head_dim: usize) -> Result<()> {
    let width = x.width();
    if head_dim != 0 && width.is_multiple_of(head_dim) && heads.end <= width / head_dim {
        return Ok(());
    }
    bail!("{op}: rows of {width} have no heads {heads:?} of {head_dim}")
}

/// Calls `run` with the index and the elements of each row of `out`; rows are `width` long.
///
/// `cost` is the work of one element in multiply-adds, which decides whether threads share it.
fn for_each_row(
    cpu: &Cpu,
    cost: usize,
    out: &mut [f32],
    width: usize,
    run: impl Fn(usize, &mut [f32]) + Sync,
) {
    let width = width.max(1);
    let rows = (CHUNK_WORK / (cost * width)).max(1);
    cpu.pool.for_each_chunk(out.len() * cost, out, rows * width, |chunk, out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            run(chunk * rows + row, out);
        }
    });
}
