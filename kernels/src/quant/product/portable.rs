//! The product in plain Rust: the specification of every other path.

use half::f16;

use super::Call;
use crate::quant::tile::unpack_block;
use crate::quant::{BLOCK, Family, Format, TILE_ROWS};

/// Rows that one call takes.
pub(super) const MAX_ROWS: usize = 1;

type Lanes<T> = [T; TILE_ROWS];

pub(super) fn run(call: &mut Call<'_>) {
    let Call { format, tile, cols, left, .. } = *call;
    let mut sums = [0f32; TILE_ROWS];
    for start in (0..cols).step_by(format.span()) {
        let len = format.span().min(cols - start);
        let (header, blocks) =
            tile[start / format.span() * format.span_bytes()..].split_at(format.header());
        let codes = &left.codes[start..start + len];
        let scales = [halves(header, 0), halves(header, 32)];
        if format.family == Family::Plain {
            for (index, codes) in codes.chunks_exact(BLOCK).enumerate() {
                let scale = left.scales[start / BLOCK + index];
                let block = &blocks[index * format.block()..][..format.block()];
                let dots = dot(format, block, codes).map(|[low, high]| low + high);
                add(&mut sums, &dots, &scales[index], scale);
            }
            continue;
        }
        let scale = left.scales[start / format.grain()];
        let (dots, mins) = span(format, header, blocks, codes);
        add(&mut sums, &dots, &scales[0], scale);
        if format.family == Family::Mins {
            add(&mut sums, &mins, &scales[1], -scale);
        }
    }
    call.sums[..TILE_ROWS].copy_from_slice(&sums);
}

/// `sums += dots * (weight * scale)`, rounded once.
fn add(sums: &mut Lanes<f32>, dots: &Lanes<i32>, weights: &Lanes<f32>, scale: f32) {
    for ((sum, &dot), &weight) in sums.iter_mut().zip(dots).zip(weights) {
        *sum = (dot as f32).mul_add(weight * scale, *sum);
    }
}

/// The integers of one span of 256 columns: scaled products, and what the minimums multiply.
fn span(format: Format, header: &[u8], blocks: &[u8], codes: &[u8]) -> (Lanes<i32>, Lanes<i32>) {
    let (mut dots, mut mins) = ([0; TILE_ROWS], [0; TILE_ROWS]);
    for (index, codes) in codes.chunks_exact(BLOCK).enumerate() {
        let block = &blocks[index * format.block()..][..format.block()];
        let sum: i32 = codes.iter().map(|&code| i32::from(code.cast_signed())).sum();
        for (lane, halves) in dot(format, block, codes).into_iter().enumerate() {
            if format.family == Family::Halves {
                let scales = &header[64 + index * 32 + lane * 2..][..2];
                let scales = [scales[0], scales[1]].map(|scale| i32::from(scale.cast_signed()));
                dots[lane] += scales[0] * halves[0] + scales[1] * halves[1];
            } else {
                dots[lane] +=
                    i32::from(header[64 + index * TILE_ROWS + lane]) * (halves[0] + halves[1]);
                mins[lane] += i32::from(header[192 + index / 2 * 32 + lane * 2 + index % 2]) * sum;
            }
        }
    }
    (dots, mins)
}

/// The products of both halves of a block, for every row of the tile.
fn dot(format: Format, block: &[u8], codes: &[u8]) -> Lanes<[i32; 2]> {
    let mut quants = [0i8; BLOCK * TILE_ROWS];
    unpack_block(format, block, &mut quants);
    let mut dots = [[0; 2]; TILE_ROWS];
    for (group, quants) in quants.chunks_exact(4 * TILE_ROWS).enumerate() {
        let codes = &codes[group * 4..][..4];
        for (dot, quants) in dots.iter_mut().zip(quants.chunks_exact(4)) {
            let products = quants.iter().zip(codes);
            dot[group / 4] += products
                .map(|(&quant, &code)| i32::from(quant) * i32::from(code.cast_signed()))
                .sum::<i32>();
        }
    }
    dots
}

fn halves(header: &[u8], start: usize) -> Lanes<f32> {
    std::array::from_fn(|lane| {
        let at = start + lane * 2;
        f16::from_le_bytes([header[at], header[at + 1]]).to_f32()
    })
}
