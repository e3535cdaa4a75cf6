//! The gate of a gated feed-forward layer.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::check_dtype;
use crate::math::exp;
use crate::view::{Rows, has_dense_rows};

/// `silu(gate) * up` for `gate_up` `[n, 2 * ff]` f32, whose rows are `gate` then `up`: `[n, ff]`.
///
/// `silu(x) = x / (1 + exp(-x))`.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    check_dtype("silu_mul", "gate_up", gate_up, DType::F32)?;
    let (_, width) = gate_up.dims2()?;
    if width % 2 != 0 {
        bail!("silu_mul: gate_up must have an even number of columns: {width}")
    }
    let x =
        if has_dense_rows(gate_up.layout()) { gate_up.clone() } else { gate_up.contiguous()? };
    x.apply_op1_no_bwd(&SiluMul)
}

struct SiluMul;

impl CustomOp1 for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::new(x, layout)?;
        let (num_rows, width) = layout.shape().dims2()?;
        let ff = width / 2;
        let mut out = vec![0f32; num_rows * ff];
        for (row, out) in out.chunks_exact_mut(ff.max(1)).enumerate() {
            let (gate, up) = x.row(row).split_at(ff);
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate / (1.0 + exp(-gate)) * up;
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((num_rows, ff))))
    }
}
