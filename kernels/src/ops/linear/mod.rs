//! The linear layer: activations times packed weights.

#[cfg(target_arch = "x86_64")]
mod split;
mod tiles;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::check_dtype;
use crate::cpu::{Cpu, Path};
use crate::view::{Rows, dense_rows, f32_slice};
use crate::{PackedTensor, WeightType};

/// `x` `[n, in]` f32 times `weight` `[out, in]`, transposed, plus `bias` `[out]` f32: `[n, out]`.
///
/// Every element is summed in f32 over ascending `in` in an order that depends on the processor and
/// the type of the weight only. Where the processor multiplies tiles of `bf16`, `x` meets `bf16`
/// weights as the sum of two `bf16`, which is off by at most one part in 2^17.
pub fn linear(x: &Tensor, weight: &PackedTensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check_dtype("linear", "x", x, DType::F32)?;
    let (_, in_dim) = x.dims2()?;
    let (out_dim, expected) = (weight.rows(), weight.cols());
    if in_dim != expected {
        bail!("linear: x has {in_dim} columns, the weight [{out_dim}, {expected}] needs {expected}")
    }
    let x = dense_rows(x)?;
    let op = Linear { weight, cpu: Cpu::current() };
    let Some(bias) = bias else { return x.apply_op1_no_bwd(&op) };
    check_dtype("linear", "bias", bias, DType::F32)?;
    if bias.dims() != [out_dim] {
        bail!("linear: bias must be [{out_dim}]: {:?}", bias.shape())
    }
    x.apply_op2_no_bwd(&bias.contiguous()?, &op)
}

struct Linear<'a> {
    weight: &'a PackedTensor,
    cpu: Cpu,
}

impl CustomOp1 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.run(Rows::new(x, layout)?, None))
    }
}

impl CustomOp2 for Linear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(self.run(Rows::new(x, layout)?, Some(f32_slice(bias, bias_layout)?)))
    }
}

impl Linear<'_> {
    fn run(&self, x: Rows<'_>, bias: Option<&[f32]>) -> (CpuStorage, Shape) {
        let shape = Shape::from((x.len(), self.weight.rows()));
        let mut out = vec![0f32; shape.elem_count()];
        if !out.is_empty() {
            multiply(&self.cpu, x, (self.weight, bias), &mut out);
        }
        (CpuStorage::F32(out), shape)
    }
}

fn multiply(
    cpu: &Cpu,
    x: Rows<'_>,
    (weight, bias): (&PackedTensor, Option<&[f32]>),
    out: &mut [f32],
) {
    match (weight.kind(), cpu.isa.path()) {
        #[cfg(target_arch = "x86_64")]
        (WeightType::Bf16, Path::Amx) => split::multiply(cpu, x, (weight, bias), out),
        _ => tiles::multiply(cpu, x, (weight, bias), out),
    }
}
