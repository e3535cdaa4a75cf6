//! The product in plain Rust, which compilers vectorize for any processor.

use super::{CHUNK, Left, Panel, Right};
use crate::math::{PORTABLE_FUSES, mul_add};
use crate::packed::{GROUP_ROWS, PAIR_ROWS};

pub(super) const MAX_ROWS: usize = 1;

pub(super) fn accumulate<const GROUPS: usize>(
    left: Left<'_>,
    Right { panel, stride, .. }: Right<'_>,
    c: &mut [f32],
) {
    for row in 0..left.rows {
        for group in 0..GROUPS {
            let c = &mut c[(row * GROUPS + group) * GROUP_ROWS..][..GROUP_ROWS];
            let mut sums = [0f32; GROUP_ROWS];
            sums.copy_from_slice(c);
            for k in 0..left.depth {
                let x = left.values[(k / CHUNK * left.rows + row) * CHUNK + k % CHUNK];
                let column = widen(panel, k, stride, group);
                for (sum, w) in sums.iter_mut().zip(column) {
                    *sum = mul_add::<PORTABLE_FUSES>(x, w, *sum);
                }
            }
            c.copy_from_slice(&sums);
        }
    }
}

#[inline]
fn widen(panel: Panel<'_>, k: usize, stride: usize, group: usize) -> [f32; GROUP_ROWS] {
    let mut column = [0f32; GROUP_ROWS];
    match panel {
        Panel::F32(values) => {
            column.copy_from_slice(&values[k * stride + group * GROUP_ROWS..][..GROUP_ROWS]);
        }
        Panel::Bf16(words) => {
            let first = group * GROUP_ROWS / PAIR_ROWS;
            for (half, column) in column.as_chunks_mut::<PAIR_ROWS>().0.iter_mut().enumerate() {
                let words = &words[(first + half) * stride + k / 2 * PAIR_ROWS..][..PAIR_ROWS];
                for (value, word) in column.iter_mut().zip(words) {
                    *value = f32::from_bits(word >> (k % 2 * 16) << 16);
                }
            }
        }
    }
    column
}
