//! Sums and multiples of activations.

use candle_core::{Result, bail};

use super::for_each_row;
use crate::Activations;
use crate::cpu::Cpu;

/// Adds `factor * x` to `sums`; both are `[n, d]`.
pub fn add_scaled(sums: &mut Activations, x: &Activations, factor: f32) -> Result<()> {
    if (sums.rows(), sums.width()) != (x.rows(), x.width()) {
        let (rows, width) = (x.rows(), x.width());
        bail!("add_scaled: [{}, {}] cannot take [{rows}, {width}]", sums.rows(), sums.width())
    }
    let (rows, width) = (x.view(), x.width());
    for_each_row(&Cpu::current(), 1, sums.values_mut(), width, |row, sums| {
        for (sum, x) in sums.iter_mut().zip(rows.row(row)) {
            *sum += factor * x;
        }
    });
    Ok(())
}

/// Multiplies every element by `factor`.
pub fn scale(x: &mut Activations, factor: f32) {
    let width = x.width();
    for_each_row(&Cpu::current(), 1, x.values_mut(), width, |_, row| {
        row.iter_mut().for_each(|x| *x *= factor);
    });
}

/// Multiplies each row of `x` `[n, d]` by the sigmoid of its element of `gates` `[n, 1]`.
pub fn scale_by_sigmoid(x: &mut Activations, gates: &Activations) -> Result<()> {
    if (gates.rows(), gates.width()) != (x.rows(), 1) {
        bail!("scale_by_sigmoid: {} rows need as many gates: {}", x.rows(), gates.values().len())
    }
    let (gates, width) = (gates.values(), x.width());
    for_each_row(&Cpu::current(), 1, x.values_mut(), width, |row, x| {
        let factor = 1.0 / (1.0 + (-gates[row]).exp());
        x.iter_mut().for_each(|x| *x *= factor);
    });
    Ok(())
}
