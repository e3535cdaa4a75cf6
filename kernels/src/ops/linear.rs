//! The linear layer: activations times packed weights.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::check_dtype;
use crate::PackedTensor;
use crate::cpu::Isa;
use crate::gemm;
use crate::packed::PANEL_ROWS;
use crate::view::{Rows, f32_slice, has_dense_rows};

/// `x` `[n, in]` f32 times `weight` `[out, in]`, transposed, plus `bias` `[out]` f32: `[n, out]`.
///
/// Every element is summed in f32 in ascending order of `in` with one accumulator.
pub fn linear(x: &Tensor, weight: &PackedTensor, bias: Option<&Tensor>) -> Result<Tensor> {
    check_dtype("linear", "x", x, DType::F32)?;
    let (_, in_dim) = x.dims2()?;
    let (out_dim, expected) = (weight.rows(), weight.cols());
    if in_dim != expected {
        bail!("linear: x has {in_dim} columns, the weight [{out_dim}, {expected}] needs {expected}")
    }
    let x = if has_dense_rows(x.layout()) { x.clone() } else { x.contiguous()? };
    let op = Linear { weight, isa: Isa::detected() };
    let Some(bias) = bias else { return x.apply_op1_no_bwd(&op) };
    check_dtype("linear", "bias", bias, DType::F32)?;
    if bias.dims() != [out_dim] {
        bail!("linear: bias must be [{out_dim}]: {:?}", bias.shape())
    }
    x.apply_op2_no_bwd(&bias.contiguous()?, &op)
}

struct Linear<'a> {
    weight: &'a PackedTensor,
    isa: Isa,
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
        let (num_rows, out_dim) = (x.len(), self.weight.rows());
        let mut out = vec![0f32; num_rows * out_dim];
        for row in 0..num_rows {
            let x = x.row(row);
            let out = &mut out[row * out_dim..][..out_dim];
            for (panel, out) in out.chunks_mut(PANEL_ROWS).enumerate() {
                let mut sums = [0f32; PANEL_ROWS];
                gemm::accumulate::<2>(
                    self.isa,
                    (x, 1, x.len()),
                    self.weight.panel(panel),
                    &mut sums,
                );
                out.copy_from_slice(&sums[..out.len()]);
                if let Some(bias) = bias {
                    let bias = &bias[panel * PANEL_ROWS..];
                    out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                }
            }
        }
        (CpuStorage::F32(out), Shape::from((num_rows, out_dim)))
    }
}
