//! The one product all matrix work is made of: a few rows times a panel of columns.
//!
//! Every element of the result is one accumulator that takes its products in ascending order of
//! depth, whatever the number of rows: that is what makes everything above batch-invariant.
#![expect(unsafe_code, reason = "calls kernels for detected instructions")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;

use crate::cpu::{Isa, Path};
use crate::packed::{GROUP_ROWS, PAIR_ROWS};

/// Depth of one chunk of packed left-hand rows.
///
/// Rows are packed as `[depth / CHUNK][rows][CHUNK]`, so that one product reads them in order and
/// a single row is packed as it is.
pub(crate) const CHUNK: usize = 32;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Right-hand values `[depth][lanes]`, `stride` values apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Panel<'a> {
    /// Plain values.
    F32(&'a [f32]),
    /// Words of two `bf16` each, in the order of [`crate::packed`]: groups of 16 lanes, `stride`
    /// words apart.
    Bf16(&'a [u32]),
}

/// Right-hand side of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'a> {
    /// The values.
    pub(crate) panel: Panel<'a>,
    /// Distance of two columns, or of two groups of 16 lanes, in elements of the panel.
    pub(crate) stride: usize,
    /// What to fetch meanwhile.
    pub(crate) ahead: Ahead,
}

/// Memory to fetch into the cache while computing: `step` bytes with each column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    /// Any address: nothing is read.
    pub(crate) from: *const u8,
    /// Zero for nothing.
    pub(crate) step: usize,
}

impl Ahead {
    /// Fetches nothing.
    pub(crate) const NOTHING: Self = Self { from: std::ptr::null(), step: 0 };
}

/// Left-hand rows, packed by [`CHUNK`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    /// The values; the last chunk may end with the last row's last value.
    pub(crate) values: &'a [f32],
    /// Number of rows, at most [`max_rows`].
    pub(crate) rows: usize,
    /// Values of a row.
    pub(crate) depth: usize,
}

impl Left<'_> {
    /// Elements that must be there.
    fn needed(&self) -> usize {
        let last = self.depth - 1;
        last / CHUNK * CHUNK * self.rows + (self.rows - 1) * CHUNK + last % CHUNK + 1
    }
}

/// Computes `c += left * right` for `32 * GROUPS` lanes, where `GROUPS` is 1 or 2.
///
/// `c` is `[rows][32 * GROUPS]`.
pub(crate) fn accumulate<const GROUPS: usize>(
    isa: Isa,
    left: Left<'_>,
    right: Right<'_>,
    c: &mut [f32],
) {
    let Right { panel, stride, .. } = right;
    if left.rows == 0 || left.depth == 0 {
        return;
    }
    let (len, needed) = match panel {
        Panel::F32(values) => (values.len(), (left.depth - 1) * stride + GROUPS * GROUP_ROWS),
        Panel::Bf16(words) => {
            (words.len(), (2 * GROUPS - 1) * stride + left.depth.div_ceil(2) * PAIR_ROWS)
        }
    };
    assert!(left.rows <= max_rows::<GROUPS>(isa), "a tile has few rows");
    assert!(left.values.len() >= left.needed(), "the left side is complete");
    assert!(len >= needed, "the right side is complete");
    assert!(c.len() >= left.rows * GROUPS * GROUP_ROWS, "the result has room");
    #[cfg(target_arch = "x86_64")]
    let mut tile = |panel| Tile {
        a: left.values.as_ptr(),
        depth: left.depth,
        panel,
        stride,
        ahead: right.ahead,
        c: c.as_mut_ptr(),
    };
    match (isa.path(), panel) {
        (Path::Portable, _) => portable::accumulate::<GROUPS>(left, right, c),
        // SAFETY: the instructions were detected, and the sizes were checked above.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, Panel::F32(w)) => unsafe {
            avx2::accumulate::<GROUPS, false>(left.rows, tile(w.as_ptr().cast()));
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, Panel::Bf16(w)) => unsafe {
            avx2::accumulate::<GROUPS, true>(left.rows, tile(w.as_ptr()));
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512 | Path::Amx, Panel::F32(w)) => unsafe {
            avx512::accumulate::<GROUPS, false>(left.rows, tile(w.as_ptr().cast()));
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512 | Path::Amx, Panel::Bf16(w)) => unsafe {
            avx512::accumulate::<GROUPS, true>(left.rows, tile(w.as_ptr()));
        },
    }
}

/// Rows that one call of [`accumulate`] takes.
pub(crate) fn max_rows<const GROUPS: usize>(isa: Isa) -> usize {
    const { assert!(GROUPS == 1 || GROUPS == 2) };
    match isa.path() {
        Path::Portable => portable::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => avx2::MAX_ROWS,
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 | Path::Amx => avx512::max_rows(GROUPS),
    }
}

/// The arguments of a vector kernel, whose sizes [`accumulate`] has checked.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Tile {
    a: *const f32,
    depth: usize,
    panel: *const u32,
    stride: usize,
    ahead: Ahead,
    c: *mut f32,
}
