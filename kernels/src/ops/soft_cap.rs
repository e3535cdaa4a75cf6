//! Values bent towards a cap.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use super::for_each_row;
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::math::tanh;

/// `cap * tanh(x / cap)` of every element, in place.
pub fn soft_cap(x: &mut Activations, cap: f32) {
    let (cpu, width) = (Cpu::current(), x.width());
    for_each_row(&cpu, 32, x.values_mut(), width, |_, row| cpu.isa.run(CapRow { row, cap }));
}

struct CapRow<'a> {
    row: &'a mut [f32],
    cap: f32,
}

impl Kernel for CapRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for x in self.row {
            *x = self.cap * tanh::<FMA>(*x / self.cap);
        }
    }
}
