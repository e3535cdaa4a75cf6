//! The gate of a gated feed-forward layer.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{Result, bail};

use super::for_each_row;
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::cuda;
use crate::math::exp;

/// `silu(gate) * up` for `gate_up` `[n, 2 * ff]`, whose rows are `gate` then `up`: `[n, ff]`.
///
/// `silu(x) = x / (1 + exp(-x))`.
pub fn silu_mul(gate_up: &Activations) -> Result<Activations> {
    let width = gate_up.width();
    if !width.is_multiple_of(2) {
        bail!("silu_mul: gate_up must have an even number of columns: {width}")
    }
    if let Some(buffer) = gate_up.device() {
        let out = cuda::silu_mul(buffer, gate_up.rows(), width / 2)?;
        return Ok(Activations::on_device(out, gate_up.rows(), width / 2));
    }
    let (cpu, ff, rows) = (Cpu::current(), width / 2, gate_up.view());
    let mut out = Activations::uninit(gate_up.rows(), ff);
    for_each_row(&cpu, 16, out.values_mut(), ff, |row, out| {
        let (gate, up) = rows.row(row).split_at(ff);
        cpu.isa.run(GateRow { gate, up, out });
    });
    Ok(out)
}

struct GateRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for GateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for ((out, &gate), &up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = gate / (1.0 + exp::<FMA>(-gate)) * up;
        }
    }
}
