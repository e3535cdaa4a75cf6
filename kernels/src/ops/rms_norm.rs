//! Root-mean-square norm.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::check_dtype;
use crate::math::sum_of_squares;
use crate::view::{Rows, f32_slice, has_dense_rows};

/// Normalizes the last dimension of `x` `[.., d]` f32: `x / sqrt(mean(x²) + eps) * weight`, where
/// `weight` is `[d]` f32. The result is contiguous.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    check_dtype("rms_norm", "x", x, DType::F32)?;
    check_dtype("rms_norm", "weight", weight, DType::F32)?;
    let width = x.dims().last().copied().unwrap_or(0);
    if weight.dims() != [width] {
        bail!("rms_norm: weight must be [{width}]: {:?}", weight.shape())
    }
    let x = if has_dense_rows(x.layout()) { x.clone() } else { x.contiguous()? };
    x.apply_op2_no_bwd(&weight.contiguous()?, &RmsNorm { eps })
}

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (Rows::new(x, layout)?, f32_slice(weight, weight_layout)?);
        let mut out = vec![0f32; layout.shape().elem_count()];
        for (row, out) in out.chunks_exact_mut(weight.len().max(1)).enumerate() {
            let x = x.row(row);
            let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + self.eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * weight;
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}
