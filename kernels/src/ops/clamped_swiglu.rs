//! The gate of gpt-oss: a swish with a slope, clamped.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{Result, bail};

use super::for_each_row;
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::math::exp;

/// `(up + 1) * gate * sigmoid(alpha * gate)` for `gate_up` `[n, 2 * ff]`, whose rows are `gate` then
/// `up`: `[n, ff]`. Before, `gate` is cut at `limit`, and `up` at `-limit` and `limit`.
pub fn clamped_swiglu(gate_up: &Activations, alpha: f32, limit: f32) -> Result<Activations> {
    let width = gate_up.width();
    if !width.is_multiple_of(2) {
        bail!("clamped_swiglu: gate_up must have an even number of columns: {width}")
    }
    let (cpu, ff, rows) = (Cpu::current(), width / 2, gate_up.view());
    let mut out = Activations::uninit(gate_up.rows(), ff);
    for_each_row(&cpu, 16, out.values_mut(), ff, |row, out| {
        let (gate, up) = rows.row(row).split_at(ff);
        cpu.isa.run(GateRow { gate, up, alpha, limit, out });
    });
    Ok(out)
}

struct GateRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    alpha: f32,
    limit: f32,
    out: &'a mut [f32],
}

impl Kernel for GateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let limit = self.limit;
        for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            // Comparisons that a NaN fails, so that it passes through.
            let gate = if gate > limit { limit } else { gate };
            let up = if up > limit { limit } else { up };
            let up = if up < -limit { -limit } else { up };
            *out = (up + 1.0) * gate / (1.0 + exp::<FMA>(-self.alpha * gate));
        }
    }
}
