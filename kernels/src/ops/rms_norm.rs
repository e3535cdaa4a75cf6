//! Root-mean-square norm.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use super::{check_dtype, check_heads, for_each_row};
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::cuda;
use crate::math::sum_of_squares;
use crate::view::with_f32;

/// Normalizes the rows of `x` `[n, d]`: `x / sqrt(mean(x²) + eps) * weight`, where `weight` is `[d]`
/// f32.
pub fn rms_norm(x: &Activations, weight: &Tensor, eps: f32) -> Result<Activations> {
    check_weight(weight, x.width())?;
    if let Some(buffer) = x.device() {
        let out = cuda::rms_norm(buffer, (x.rows(), x.width()), weight, eps)?;
        return Ok(Activations::on_device(out, x.rows(), x.width()));
    }
    let (cpu, rows) = (Cpu::current(), x.view());
    let mut out = Activations::uninit(x.rows(), x.width());
    with_f32(weight, |weight| {
        for_each_row(&cpu, 2, out.values_mut(), weight.len(), |row, out| {
            cpu.isa.run(NormalizeRow { x: rows.row(row), weight, eps, out });
        });
    })?;
    Ok(out)
}

/// Normalizes some heads of each row of `x` `[n, heads * d]` in place, with one `weight` `[d]`.
pub fn rms_norm_heads(
    x: &mut Activations,
    heads: Range<usize>,
    weight: &Tensor,
    eps: f32,
) -> Result<()> {
    let head_dim = weight.elem_count();
    check_heads("rms_norm", x, &heads, head_dim)?;
    rms_norm_columns(x, heads.start * head_dim..heads.end * head_dim, weight, eps)
}

/// Normalizes runs of columns of each row of `x` `[n, width]` in place, each as long as `weight`.
pub fn rms_norm_columns(
    x: &mut Activations,
    columns: Range<usize>,
    weight: &Tensor,
    eps: f32,
) -> Result<()> {
    let len = weight.elem_count();
    check_weight(weight, len)?;
    let (cpu, width) = (Cpu::current(), x.width());
    if width < columns.end || !columns.len().is_multiple_of(len) {
        bail!("rms_norm: rows of {width} have no columns {columns:?} in runs of {len}")
    }
    if let Some(buffer) = x.device() {
        return cuda::rms_norm_columns(buffer, (x.rows(), width), columns, weight, eps);
    }
    with_f32(weight, |weight| {
        for_each_row(&cpu, 2, x.values_mut(), width, |_, row| {
            for head in row[columns.clone()].chunks_exact_mut(len) {
                cpu.isa.run(NormalizeInPlace { x: head, weight, eps });
            }
        });
    })
}

fn check_weight(weight: &Tensor, width: usize) -> Result<()> {
    check_dtype("rms_norm", "weight", weight, DType::F32)?;
    if weight.dims() != [width] || width == 0 {
        bail!("rms_norm: weight must be [{width}]: {:?}", weight.shape())
    }
    Ok(())
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

struct NormalizeInPlace<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for NormalizeInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let mean = sum_of_squares::<FMA>(self.x) / self.x.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for (x, weight) in self.x.iter_mut().zip(self.weight) {
            *x = *x * scale * weight;
        }
    }
}
