//! Root-mean-square norm.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::{check_dtype, for_each_row};
use crate::cpu::{Cpu, Kernel};
use crate::math::sum_of_squares;
use crate::view::{Rows, dense_rows, f32_slice};

/// Normalizes the last dimension of `x` `[.., d]` f32: `x / sqrt(mean(x²) + eps) * weight`, where
/// `weight` is `[d]` f32. The result is contiguous.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    check_dtype("rms_norm", "x", x, DType::F32)?;
    check_dtype("rms_norm", "weight", weight, DType::F32)?;
    let width = x.dims().last().copied().unwrap_or(0);
    if weight.dims() != [width] {
        bail!("rms_norm: weight must be [{width}]: {:?}", weight.shape())
    }
    dense_rows(x)?.apply_op2_no_bwd(&weight.contiguous()?, &RmsNorm { eps, cpu: Cpu::current() })
}

struct RmsNorm {
    eps: f32,
    cpu: Cpu,
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
        for_each_row(&self.cpu, 2, &mut out, weight.len(), |row, out| {
            self.cpu.isa.run(NormalizeRow { x: x.row(row), weight, eps: self.eps, out });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct NormalizeRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for NormalizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let mean = sum_of_squares::<FMA>(self.x) / self.x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }
}
