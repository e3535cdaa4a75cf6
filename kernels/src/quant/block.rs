//! The part of one row that lies in one span, as integers.

use half::f16;

use super::{BLOCK, Family, Format};

/// Columns of the longest span.
pub(super) const MAX_SPAN: usize = 256;

/// One row of one span. What a type does not use is zero.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// The scales of two blocks; or `d` and `dmin`.
    pub(super) d: [f16; 2],
    /// Integer scales: one a block of 32, or one for every 16 columns.
    pub(super) scales: [i8; 16],
    /// Integer minimums, one a block.
    pub(super) mins: [u8; 8],
    /// Codes less their offset.
    pub(super) quants: [i8; MAX_SPAN],
}

impl Block {
    /// All zero.
    pub(super) const ZERO: Self =
        Self { d: [f16::ZERO; 2], scales: [0; 16], mins: [0; 8], quants: [0; MAX_SPAN] };

    /// The values it stands for.
    pub(super) fn dequantize(&self, format: Format, values: &mut [f32]) {
        let d = self.d.map(f16::to_f32);
        for (col, value) in values.iter_mut().enumerate() {
            let (block, quant) = (col / BLOCK, f32::from(self.quants[col]));
            *value = match format.family {
                Family::Plain => d[block] * quant,
                Family::Mins => {
                    let min = d[1] * f32::from(self.mins[block]);
                    d[0] * f32::from(self.scales[block]) * quant - min
                }
                Family::Halves => d[0] * f32::from(self.scales[col / 16]) * quant,
            };
        }
    }
}
