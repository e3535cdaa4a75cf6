//! Layer norm.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{DType, Result, Tensor, bail};

use super::{check_dtype, for_each_row};
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::math::{sum, sum_of_squares};
use crate::view::with_f32;

/// Normalizes the rows of `x` `[n, d]`: `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, where
/// `weight` and `bias` are `[d]` f32.
pub fn layer_norm(
    x: &Activations,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<Activations> {
    for (name, vector) in [("weight", weight), ("bias", bias)] {
        check_dtype("layer_norm", name, vector, DType::F32)?;
        if vector.dims() != [x.width()] || x.width() == 0 {
            bail!("layer_norm: {name} must be [{}]: {:?}", x.width(), vector.shape())
        }
    }
    let (cpu, rows) = (Cpu::current(), x.view());
    let mut out = Activations::uninit(x.rows(), x.width());
    with_f32(weight, |weight| {
        with_f32(bias, |bias| {
            for_each_row(&cpu, 4, out.values_mut(), weight.len(), |row, out| {
                out.copy_from_slice(rows.row(row));
                cpu.isa.run(Normalize { x: out, weight, bias, eps });
            });
        })
    })??;
    Ok(out)
}

struct Normalize<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let len = self.x.len() as f32;
        let mean = sum(self.x) / len;
        self.x.iter_mut().for_each(|x| *x -= mean);
        let scale = 1.0 / (sum_of_squares::<FMA>(self.x) / len + self.eps).sqrt();
        for ((x, weight), bias) in self.x.iter_mut().zip(self.weight).zip(self.bias) {
            *x = *x * scale * weight + bias;
        }
    }
}
