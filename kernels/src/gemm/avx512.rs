//! The product with 512-bit vectors: 64 lanes for up to 6 rows, 32 lanes for up to 12.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::{Ahead, CHUNK, LINE, Tile};
use crate::packed::{GROUP_ROWS, PAIR_ROWS};

/// Rows that fill the registers with sums of `groups` groups of lanes.
pub(super) const fn max_rows(groups: usize) -> usize {
    12 / groups
}

/// Computes a tile of 1 to [`max_rows`] rows.
///
/// # Safety
/// The processor must have the instructions, and the tile must be valid.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn accumulate<const GROUPS: usize, const BF16: bool>(rows: usize, tile: Tile) {
    // SAFETY: the caller's contract. Above 6 rows there is one group.
    unsafe {
        match rows {
            1 => run::<1, GROUPS, BF16>(tile),
            2 => run::<2, GROUPS, BF16>(tile),
            3 => run::<3, GROUPS, BF16>(tile),
            4 => run::<4, GROUPS, BF16>(tile),
            5 => run::<5, GROUPS, BF16>(tile),
            6 => run::<6, GROUPS, BF16>(tile),
            7 => run::<7, 1, BF16>(tile),
            8 => run::<8, 1, BF16>(tile),
            9 => run::<9, 1, BF16>(tile),
            10 => run::<10, 1, BF16>(tile),
            11 => run::<11, 1, BF16>(tile),
            _ => run::<12, 1, BF16>(tile),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn run<const ROWS: usize, const GROUPS: usize, const BF16: bool>(tile: Tile) {
    let Tile { a, depth, panel, stride, ahead, c } = tile;
    let mut sums = [[[_mm512_setzero_ps(); 2]; GROUPS]; ROWS];
    // SAFETY: all pointers stay within the slices that `gemm::accumulate` checked: `a` up to depth
    // `depth - 1` of `ROWS` rows, `panel` up to column `depth - 1`, `c` up to `ROWS` rows.
    unsafe {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (group, sums) in sums.iter_mut().enumerate() {
                let c = c.add((row * GROUPS + group) * GROUP_ROWS);
                *sums = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
            }
        }
        for start in (0..depth).step_by(CHUNK) {
            let a = a.add(start * ROWS);
            for k in 0..CHUNK.min(depth - start) {
                prefetch(ahead, start + k);
                // All weights before all rows: with 24 sums there is one register left for `x`.
                let mut weights = [[_mm512_setzero_ps(); 2]; GROUPS];
                for (group, weights) in weights.iter_mut().enumerate() {
                    *weights = load::<BF16>(panel, stride, start + k, group);
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(row * CHUNK + k));
                    for (sums, w) in sums.iter_mut().zip(&weights) {
                        sums[0] = _mm512_fmadd_ps(x, w[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(x, w[1], sums[1]);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (group, sums) in sums.iter().enumerate() {
                let c = c.add((row * GROUPS + group) * GROUP_ROWS);
                _mm512_storeu_ps(c, sums[0]);
                _mm512_storeu_ps(c.add(16), sums[1]);
            }
        }
    }
}

/// The 32 lanes of one group of column `k`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<const BF16: bool>(
    panel: *const u32,
    stride: usize,
    k: usize,
    group: usize,
) -> [__m512; 2] {
    // SAFETY: the caller passes a panel that has this group of this column.
    unsafe {
        if BF16 {
            let first = panel.add(2 * group * stride + k / 2 * PAIR_ROWS);
            let words = [first, first.add(stride)].map(|words| _mm512_loadu_si512(words.cast()));
            let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            if k.is_multiple_of(2) {
                words.map(|words| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
            } else {
                words.map(|words| _mm512_castsi512_ps(_mm512_and_si512(words, high)))
            }
        } else {
            let values = panel.add(k * stride + group * GROUP_ROWS).cast::<f32>();
            [_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16))]
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(ahead: Ahead, column: usize) {
    let from = ahead.from.wrapping_add(column * ahead.step);
    for line in (0..ahead.step).step_by(LINE) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast());
    }
}
