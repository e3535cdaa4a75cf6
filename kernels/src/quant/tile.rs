//! Rows in and out of tiles.

use half::f16;

use super::block::Block;
use super::{BLOCK, Family, Format, TILE_ROWS};

/// Where four columns of a row lie among those of all rows.
const GROUP: usize = TILE_ROWS * 4;

/// Writes one row of span `span` of a zeroed tile; `cols` are those of the whole row.
pub(super) fn write(format: Format, cols: usize, tile: &mut [u8], place: Place, block: &Block) {
    let Place { lane, span } = place;
    let (header, codes) = tile[span * format.span_bytes()..].split_at_mut(format.header());
    for (index, d) in block.d.iter().enumerate() {
        header[index * 32 + lane * 2..][..2].copy_from_slice(&d.to_le_bytes());
    }
    match format.family {
        Family::Plain => {}
        Family::Mins => {
            for (index, (&scale, &min)) in block.scales.iter().zip(&block.mins).enumerate() {
                header[64 + index * TILE_ROWS + lane] = scale.cast_unsigned();
                header[192 + index / 2 * 32 + lane * 2 + index % 2] = min;
            }
        }
        Family::Halves => {
            for (index, scale) in block.scales.iter().enumerate() {
                header[64 + index / 2 * 32 + lane * 2 + index % 2] = scale.cast_unsigned();
            }
        }
    }
    let len = format.span().min(cols - span * format.span());
    for (col, &quant) in block.quants[..len].iter().enumerate() {
        let codes = &mut codes[col / BLOCK * format.block()..][..format.block()];
        write_code(format, codes, lane, col % BLOCK, quant);
    }
}

/// Reads what [`write`] wrote.
pub(super) fn read(format: Format, cols: usize, tile: &[u8], place: Place) -> Block {
    let Place { lane, span } = place;
    let (header, codes) = tile[span * format.span_bytes()..].split_at(format.header());
    let mut block = Block::ZERO;
    for (index, d) in block.d.iter_mut().enumerate() {
        let at = index * 32 + lane * 2;
        *d = f16::from_le_bytes([header[at], header[at + 1]]);
    }
    match format.family {
        Family::Plain => {}
        Family::Mins => {
            for index in 0..block.mins.len() {
                block.scales[index] = header[64 + index * TILE_ROWS + lane].cast_signed();
                block.mins[index] = header[192 + index / 2 * 32 + lane * 2 + index % 2];
            }
        }
        Family::Halves => {
            for (index, scale) in block.scales.iter_mut().enumerate() {
                *scale = header[64 + index / 2 * 32 + lane * 2 + index % 2].cast_signed();
            }
        }
    }
    let len = format.span().min(cols - span * format.span());
    for (col, quant) in block.quants[..len].iter_mut().enumerate() {
        let codes = &codes[col / BLOCK * format.block()..][..format.block()];
        *quant = read_code(format, codes, lane, col % BLOCK);
    }
    block
}

/// Which part of a tile.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Row of the tile.
    pub(super) lane: usize,
    /// Span of the row.
    pub(super) span: usize,
}

fn write_code(format: Format, codes: &mut [u8], lane: usize, col: usize, quant: i8) {
    let (group, byte) = (col / 4, lane * 4 + col % 4);
    if format.bits == 8 {
        codes[group * GROUP + byte] = quant.cast_unsigned();
        return;
    }
    let code = (i32::from(quant) + format.offset()).cast_unsigned() as u8;
    codes[group / 2 * GROUP + byte] |= (code & 15) << (group % 2 * 4);
    let more = &mut codes[4 * GROUP..];
    match format.bits {
        5 => more[byte] |= code >> 4 << group,
        6 => more[group / 4 * GROUP + byte] |= code >> 4 << (group % 4 * 2),
        _ => {}
    }
}

fn read_code(format: Format, codes: &[u8], lane: usize, col: usize) -> i8 {
    let (group, byte) = (col / 4, lane * 4 + col % 4);
    if format.bits == 8 {
        return codes[group * GROUP + byte].cast_signed();
    }
    let low = codes[group / 2 * GROUP + byte] >> (group % 2 * 4) & 15;
    let more = &codes[4 * GROUP..];
    let high = match format.bits {
        5 => more[byte] >> group & 1,
        6 => more[group / 4 * GROUP + byte] >> (group % 4 * 2) & 3,
        _ => 0,
    };
    (i32::from(low | high << 4) - format.offset()) as i8
}

/// The codes of a block less their offset: `[8][16 rows][4]`.
pub(super) fn unpack_block(format: Format, codes: &[u8], quants: &mut [i8; BLOCK * TILE_ROWS]) {
    let offset = format.offset() as i8;
    for (group, quants) in quants.chunks_exact_mut(GROUP).enumerate() {
        if format.bits == 8 {
            let codes = &codes[group * GROUP..][..GROUP];
            quants.iter_mut().zip(codes).for_each(|(quant, code)| *quant = code.cast_signed());
            continue;
        }
        let low = &codes[group / 2 * GROUP..][..GROUP];
        for (quant, code) in quants.iter_mut().zip(low) {
            *quant = (code >> (group % 2 * 4) & 15).cast_signed() - offset;
        }
        let (start, shift, mask) = match format.bits {
            5 => (4 * GROUP, group, 1),
            6 => ((4 + group / 4) * GROUP, group % 4 * 2, 3),
            _ => continue,
        };
        for (quant, code) in quants.iter_mut().zip(&codes[start..][..GROUP]) {
            *quant += ((code >> shift & mask) << 4).cast_signed();
        }
    }
}

/// Writes row `row` of a packed matrix to `values`, which has its columns.
pub(crate) fn read_row(format: Format, bytes: &[u8], row: usize, values: &mut [f32]) {
    let cols = values.len();
    let tile = &bytes[row / TILE_ROWS * format.tile_bytes(cols)..];
    for (span, values) in values.chunks_mut(format.span()).enumerate() {
        let place = Place { lane: row % TILE_ROWS, span };
        read(format, cols, tile, place).dequantize(format, values);
    }
}
