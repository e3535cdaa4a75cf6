//! The Gaussian error linear unit, alone and as a gate.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{Result, bail};

use super::for_each_row;
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::math::{erfc, exp, mul_add};

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Which formula a model was trained with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gelu {
    /// `x * Phi(x)` with the distribution function of the normal distribution (`gelu`).
    Exact,
    /// The same with `tanh` (`gelu_pytorch_tanh`, `gelu_new`).
    Tanh,
}

/// `gelu(x)` of every element, in place.
pub fn gelu(x: &mut Activations, kind: Gelu) {
    let (cpu, width) = (Cpu::current(), x.width());
    for_each_row(&cpu, 32, x.values_mut(), width, |_, row| cpu.isa.run(GeluRow { row, kind }));
}

/// `gelu(gate) * up` for `gate_up` `[n, 2 * ff]`, whose rows are `gate` then `up`: `[n, ff]`.
pub fn gelu_mul(gate_up: &Activations, kind: Gelu) -> Result<Activations> {
    let width = gate_up.width();
    if !width.is_multiple_of(2) {
        bail!("gelu_mul: gate_up must have an even number of columns: {width}")
    }
    let (cpu, ff, rows) = (Cpu::current(), width / 2, gate_up.view());
    let mut out = Activations::uninit(gate_up.rows(), ff);
    for_each_row(&cpu, 32, out.values_mut(), ff, |row, out| {
        let (gate, up) = rows.row(row).split_at(ff);
        out.copy_from_slice(gate);
        cpu.isa.run(GeluRow { row: out, kind });
        out.iter_mut().zip(up).for_each(|(out, up)| *out *= up);
    });
    Ok(out)
}

struct GeluRow<'a> {
    row: &'a mut [f32],
    kind: Gelu,
}

impl Kernel for GeluRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        match self.kind {
            Gelu::Exact => {
                for x in self.row {
                    *x *= 0.5 * erfc::<FMA>(*x * -std::f32::consts::FRAC_1_SQRT_2);
                }
            }
            // `(1 + tanh(y)) / 2` is `1 / (1 + exp(-2 y))`.
            Gelu::Tanh => {
                for x in self.row {
                    let y = SQRT_2_OVER_PI * *x * mul_add::<FMA>(0.044_715 * *x, *x, 1.0);
                    *x /= 1.0 + exp::<FMA>(-2.0 * y);
                }
            }
        }
    }
}
