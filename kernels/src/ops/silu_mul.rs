//! The gate of a gated feed-forward layer.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

use super::{check_dtype, for_each_row};
use crate::cpu::{Cpu, Kernel};
use crate::math::exp;
use crate::view::{Rows, dense_rows};

/// `silu(gate) * up` for `gate_up` `[n, 2 * ff]` f32, whose rows are `gate` then `up`: `[n, ff]`.
///
/// `silu(x) = x / (1 + exp(-x))`.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    check_dtype("silu_mul", "gate_up", gate_up, DType::F32)?;
    let (_, width) = gate_up.dims2()?;
    if width % 2 != 0 {
        bail!("silu_mul: gate_up must have an even number of columns: {width}")
    }
    dense_rows(gate_up)?.apply_op1_no_bwd(&SiluMul { cpu: Cpu::current() })
}

struct SiluMul {
    cpu: Cpu,
}

impl CustomOp1 for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::new(x, layout)?;
        let (num_rows, width) = layout.shape().dims2()?;
        let ff = width / 2;
        let mut out = vec![0f32; num_rows * ff];
        for_each_row(&self.cpu, 16, &mut out, ff, |row, out| {
            let (gate, up) = x.row(row).split_at(ff);
            self.cpu.isa.run(GateRow { gate, up, out });
        });
        Ok((CpuStorage::F32(out), Shape::from((num_rows, ff))))
    }
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
