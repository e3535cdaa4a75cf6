//! The product with 256-bit vectors: 64 lanes for one row, 32 lanes at a time for 2 or 3.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m256, _MM_HINT_T0, _mm_prefetch, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::{Ahead, CHUNK, LINE, Tile};
use crate::packed::{GROUP_ROWS, PAIR_ROWS};

/// Rows whose sums of one group fill the registers.
pub(super) const MAX_ROWS: usize = 3;

/// Computes a tile of 1 to [`MAX_ROWS`] rows.
///
/// # Safety
/// The processor must have the instructions, and the tile must be valid.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn accumulate<const GROUPS: usize, const BF16: bool>(rows: usize, tile: Tile) {
    let width = GROUPS * GROUP_ROWS;
    // SAFETY: the caller's contract.
    unsafe {
        if rows == 1 {
            return run::<1, GROUPS, BF16>(tile, width);
        }
        for group in 0..GROUPS {
            let lanes = group * GROUP_ROWS;
            let words = if BF16 { 2 * group * tile.stride } else { lanes };
            let tile = Tile { panel: tile.panel.add(words), c: tile.c.add(lanes), ..tile };
            match rows {
                2 => run::<2, 1, BF16>(tile, width),
                _ => run::<3, 1, BF16>(tile, width),
            }
        }
    }
}

/// `width` is the distance of two rows of the result.
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize, const GROUPS: usize, const BF16: bool>(tile: Tile, width: usize) {
    let Tile { a, depth, panel, stride, ahead, c } = tile;
    let mut sums = [[[_mm256_setzero_ps(); 4]; GROUPS]; ROWS];
    // SAFETY: all pointers stay within the slices that `gemm::accumulate` checked: `a` up to depth
    // `depth - 1` of `ROWS` rows, `panel` up to column `depth - 1`, `c` up to `ROWS` rows.
    unsafe {
        for (row, sums) in sums.iter_mut().enumerate() {
            for (lane, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(c.add(row * width + lane * 8));
            }
        }
        for start in (0..depth).step_by(CHUNK) {
            let a = a.add(start * ROWS);
            for k in 0..CHUNK.min(depth - start) {
                prefetch(ahead, start + k);
                for group in 0..GROUPS {
                    for half in 0..2 {
                        let w = load::<BF16>(panel, stride, start + k, 2 * group + half);
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let x = _mm256_set1_ps(*a.add(row * CHUNK + k));
                            let sums = &mut sums[group][2 * half..][..2];
                            sums[0] = _mm256_fmadd_ps(x, w[0], sums[0]);
                            sums[1] = _mm256_fmadd_ps(x, w[1], sums[1]);
                        }
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (lane, sum) in sums.as_flattened().iter().enumerate() {
                _mm256_storeu_ps(c.add(row * width + lane * 8), *sum);
            }
        }
    }
}

/// 16 lanes of column `k`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load<const BF16: bool>(
    panel: *const u32,
    stride: usize,
    k: usize,
    group: usize,
) -> [__m256; 2] {
    // SAFETY: the caller passes a panel that has this group of this column.
    unsafe {
        if BF16 {
            let first = panel.add(group * stride + k / 2 * PAIR_ROWS);
            let words = [first, first.add(8)].map(|words| _mm256_loadu_si256(words.cast()));
            let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            if k.is_multiple_of(2) {
                words.map(|words| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)))
            } else {
                words.map(|words| _mm256_castsi256_ps(_mm256_and_si256(words, high)))
            }
        } else {
            let values = panel.add(k * stride + group * PAIR_ROWS).cast::<f32>();
            [_mm256_loadu_ps(values), _mm256_loadu_ps(values.add(8))]
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn prefetch(ahead: Ahead, column: usize) {
    let from = ahead.from.wrapping_add(column * ahead.step);
    for line in (0..ahead.step).step_by(LINE) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast());
    }
}
