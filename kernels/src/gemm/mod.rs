//! The one product all matrix work is made of: a few rows times a panel of columns.
//!
//! Every element of the result is one accumulator that takes its products in ascending order of
//! depth, whatever the number of rows: that is what makes everything above batch-invariant.

mod portable;

use crate::cpu::Isa;
use crate::packed::GROUP_ROWS;

/// Depth of one chunk of packed left-hand rows.
///
/// Rows are packed as `[depth / CHUNK][rows][CHUNK]`, so that one product reads them in order and
/// a single row is packed as it is.
pub(crate) const CHUNK: usize = 32;

/// Right-hand values `[depth][lanes]`, `stride` values apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Panel<'a> {
    /// Plain values.
    F32(&'a [f32]),
    /// Words of two `bf16` each, in the order of [`crate::packed`].
    Bf16(&'a [u32]),
}

/// Computes `c += a * panel` for up to [`max_rows`] rows and `32 * GROUPS` lanes.
///
/// `a` is packed by [`CHUNK`]; `stride` is the distance of two depths in the elements of `panel`;
/// `c` is `[rows][32 * GROUPS]`.
pub(crate) fn accumulate<const GROUPS: usize>(
    isa: Isa,
    (a, rows, depth): (&[f32], usize, usize),
    (panel, stride): (Panel<'_>, usize),
    c: &mut [f32],
) {
    if rows == 0 || depth == 0 {
        return;
    }
    assert!(rows <= max_rows::<GROUPS>(isa), "a tile has few rows");
    let last = depth - 1;
    assert!(a.len() > last / CHUNK * CHUNK * rows + (rows - 1) * CHUNK + last % CHUNK, "left side");
    assert!(c.len() >= rows * GROUPS * GROUP_ROWS, "result");
    let (len, lanes) = match panel {
        Panel::F32(values) => (values.len(), GROUPS * GROUP_ROWS),
        Panel::Bf16(words) => (words.len(), GROUPS * GROUP_ROWS / 2),
    };
    assert!(len >= last * stride + lanes, "right side");
    match isa {
        Isa::Portable => portable::accumulate::<GROUPS>((a, rows, depth), (panel, stride), c),
    }
}

/// Rows that one call of [`accumulate`] takes.
pub(crate) fn max_rows<const GROUPS: usize>(isa: Isa) -> usize {
    match isa {
        Isa::Portable => portable::MAX_ROWS,
    }
}
