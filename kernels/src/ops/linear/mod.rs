//! The linear layer: activations times packed weights.

#[cfg(target_arch = "x86_64")]
mod split;
mod tiles;

use candle_core::{DType, Result, Tensor, bail};

use super::check_dtype;
use crate::cpu::Cpu;
use crate::cuda;
use crate::quant;
use crate::view::{Rows, with_f32};
use crate::{Activations, PackedTensor};

/// `x` `[n, in]` times `weight` `[out, in]`, transposed, plus `bias` `[out]` f32: `[n, out]`.
///
/// Every element is summed in f32 over ascending `in` in an order that depends on the processor and
/// the type of the weight only. Where the processor multiplies tiles of `bf16`, `x` meets `bf16`
/// weights as the sum of two `bf16`, which is off by at most one part in 2^17. With quantized
/// weights `x` is rounded to 8 bits, a scale for every 32 columns (256 for the `_k` types), and a
/// row that holds NaN or an infinity becomes a row of NaN.
pub fn linear(
    x: &Activations,
    weight: &PackedTensor,
    bias: Option<&Tensor>,
) -> Result<Activations> {
    let mut out = match x.device() {
        Some(buffer) => {
            let memory = buffer.gpu().allocate(x.rows() * weight.rows() * size_of::<f32>())?;
            Activations::on_device(memory, x.rows(), weight.rows())
        }
        None => Activations::uninit(x.rows(), weight.rows()),
    };
    run(x, weight, bias, (&mut out, Mode::Write))?;
    Ok(out)
}

/// Adds what [`linear`] gives to `sums` `[n, out]`, as a residual connection does.
pub fn add_linear(
    x: &Activations,
    weight: &PackedTensor,
    bias: Option<&Tensor>,
    sums: &mut Activations,
) -> Result<()> {
    if (sums.rows(), sums.width()) != (x.rows(), weight.rows()) {
        let (rows, out_dim) = (x.rows(), weight.rows());
        bail!("linear: [{}, {}] cannot take [{rows}, {out_dim}]", sums.rows(), sums.width())
    }
    run(x, weight, bias, (sums, Mode::Add))
}

fn run(
    x: &Activations,
    weight: &PackedTensor,
    bias: Option<&Tensor>,
    (out, mode): (&mut Activations, Mode),
) -> Result<()> {
    match (x.device(), weight.device(), out.device()) {
        (None, None, None) => multiply_checked(x.view(), weight, bias, (out.values_mut(), mode)),
        (Some(from), Some(matrix), Some(to)) => {
            check(x.width(), weight, bias)?;
            cuda::linear(from, x.rows(), &matrix, bias, to, matches!(mode, Mode::Add))
        }
        _ => bail!("linear: activations and weights are on several devices"),
    }
}

/// As [`linear`], of rows that lie anywhere, to `out` `[n, out]`.
pub(super) fn linear_rows(
    x: Rows<'_>,
    weight: &PackedTensor,
    bias: Option<&Tensor>,
    out: &mut [f32],
) -> Result<()> {
    multiply_checked(x, weight, bias, (out, Mode::Write))
}

fn multiply_checked(
    x: Rows<'_>,
    weight: &PackedTensor,
    bias: Option<&Tensor>,
    (out, mode): (&mut [f32], Mode),
) -> Result<()> {
    check(x.width(), weight, bias)?;
    if x.len() == 0 {
        return Ok(());
    }
    let cpu = Cpu::current();
    let mut multiply = |bias: Option<&[f32]>| {
        multiply(&cpu, x, weight, Finish { bias, mode }, out);
    };
    let Some(bias) = bias else {
        multiply(None);
        return Ok(());
    };
    with_f32(bias, |bias| multiply(Some(bias)))
}

fn check(in_dim: usize, weight: &PackedTensor, bias: Option<&Tensor>) -> Result<()> {
    let (out_dim, expected) = (weight.rows(), weight.cols());
    if in_dim != expected {
        bail!("linear: x has {in_dim} columns, the weight [{out_dim}, {expected}] needs {expected}")
    }
    if let Some(bias) = bias {
        check_dtype("linear", "bias", bias, DType::F32)?;
        if bias.dims() != [out_dim] {
            bail!("linear: bias must be [{out_dim}]: {:?}", bias.shape())
        }
    }
    Ok(())
}

/// Writes the product to `out` `[n, out]`.
fn multiply(cpu: &Cpu, x: Rows<'_>, weight: &PackedTensor, finish: Finish<'_>, out: &mut [f32]) {
    if let Some(matrix) = weight.quantized() {
        let finish = |first: usize, sums: &[f32], out: &mut [f32]| finish.write(first, sums, out);
        return quant::multiply(cpu, x, matrix, out, &finish);
    }
    #[cfg(target_arch = "x86_64")]
    if weight.kind() == crate::WeightType::Bf16 && cpu.isa.path() == crate::cpu::Path::Amx {
        return split::multiply(cpu, x, weight, finish, out);
    }
    tiles::multiply(cpu, x, weight, finish, out);
}

/// What a product does to its result.
#[derive(Clone, Copy)]
enum Mode {
    Write,
    Add,
}

/// What happens to sums before they are a result.
#[derive(Clone, Copy)]
struct Finish<'a> {
    bias: Option<&'a [f32]>,
    mode: Mode,
}

impl Finish<'_> {
    /// Writes or adds the sums of the lanes from `first` on to `out`, with their bias.
    fn write(&self, first: usize, sums: &[f32], out: &mut [f32]) {
        let bias = self.bias.map(|bias| &bias[first..first + out.len()]);
        let sums = &sums[..out.len()];
        match (self.mode, bias) {
            (Mode::Write, None) => out.copy_from_slice(sums),
            (Mode::Write, Some(bias)) => {
                out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), bias)| *out = sum + bias);
            }
            (Mode::Add, None) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
            (Mode::Add, Some(bias)) => {
                out.iter_mut()
                    .zip(sums)
                    .zip(bias)
                    .for_each(|((out, sum), bias)| *out += sum + bias);
            }
        }
    }
}
