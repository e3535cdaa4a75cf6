//! Blocks of the GGML types, as GGUF files store them.

use candle_core::{Result, bail};
use half::f16;

use super::block::Block;
use super::pack::fill;
use super::{BLOCK, Family, Format};
use crate::cpu::Cpu;
use crate::packed::AlignedBytes;

/// Columns and bytes of one block in a file.
pub(crate) const fn block_size(format: Format) -> (usize, usize) {
    match (format.family, format.bits) {
        (Family::Plain, bits) => (BLOCK, 2 + BLOCK * bits / 8),
        (Family::Mins, bits) => (256, 16 + 256 * bits / 8),
        (Family::Halves, bits) => (256, 18 + 256 * bits / 8),
    }
}

/// Bytes of a row of `cols` columns in a file, if they are whole blocks.
pub(crate) fn row_bytes(format: Format, cols: usize) -> Option<usize> {
    let (columns, bytes) = block_size(format);
    (cols > 0 && cols.is_multiple_of(columns)).then_some(cols / columns).map(|n| n * bytes)
}

/// Repacks rows of blocks, the rows of all parts below one another; the number of rows and tiles.
pub(crate) fn import(
    cpu: &Cpu,
    format: Format,
    cols: usize,
    parts: &[&[u8]],
) -> Result<(usize, AlignedBytes)> {
    let Some(row_bytes) = row_bytes(format, cols) else {
        let (columns, _) = block_size(format);
        bail!("a row of {cols} columns is not made of blocks of {columns}")
    };
    if parts.is_empty() {
        bail!("a matrix needs at least one part")
    }
    let mut rows = Vec::new();
    for part in parts {
        if part.is_empty() || !part.len().is_multiple_of(row_bytes) {
            bail!("{} bytes are not rows of {row_bytes} bytes each", part.len())
        }
        rows.extend(part.chunks_exact(row_bytes));
    }
    let (columns, block_bytes) = block_size(format);
    let bytes_per_span = format.span() / columns * block_bytes;
    let bytes = fill(cpu, format, [rows.len(), cols], |row, blocks| {
        for (block, bytes) in blocks.iter_mut().zip(rows[row].chunks(bytes_per_span)) {
            *block = read(format, bytes);
        }
        Ok(())
    })?;
    Ok((rows.len(), bytes))
}

/// One span of a row.
fn read(format: Format, bytes: &[u8]) -> Block {
    let mut block = Block::ZERO;
    match format.family {
        Family::Plain => {
            let (_, size) = block_size(format);
            for (index, bytes) in bytes.chunks_exact(size).enumerate() {
                let (d, codes) = bytes.split_at(2);
                block.d[index] = half_at(d, 0);
                let quants = &mut block.quants[index * BLOCK..][..BLOCK];
                read_plain(format, codes, quants);
            }
        }
        Family::Mins => read_mins(format, bytes, &mut block),
        Family::Halves => read_halves(bytes, &mut block),
    }
    block
}

fn read_plain(format: Format, codes: &[u8], quants: &mut [i8]) {
    if format.bits == 8 {
        quants.iter_mut().zip(codes).for_each(|(quant, code)| *quant = code.cast_signed());
        return;
    }
    // `q5_0` has a word of fifth bits before its nibbles.
    let (high, nibbles) = codes.split_at(codes.len() - BLOCK / 2);
    for (col, quant) in quants.iter_mut().enumerate() {
        let low = nibbles[col % 16] >> (col / 16 * 4) & 15;
        let high = high.get(col / 8).map_or(0, |byte| byte >> (col % 8) & 1);
        *quant = (i32::from(low | high << 4) - format.offset()) as i8;
    }
}

fn read_mins(format: Format, bytes: &[u8], block: &mut Block) {
    block.d = [half_at(bytes, 0), half_at(bytes, 2)];
    let (scales, codes) = bytes[4..].split_at(12);
    for index in 0..8 {
        // Six bits each: the upper two of the last four lie above the first four.
        let (scale, min) = if index < 4 {
            (scales[index] & 63, scales[index + 4] & 63)
        } else {
            let low = scales[index + 4];
            (low & 15 | scales[index - 4] >> 6 << 4, low >> 4 | scales[index] >> 6 << 4)
        };
        block.scales[index] = scale.cast_signed();
        block.mins[index] = min;
    }
    let (high, nibbles) = codes.split_at(codes.len() - 128);
    for (col, quant) in block.quants.iter_mut().enumerate() {
        let low = nibbles[col / 64 * 32 + col % 32] >> (col / 32 % 2 * 4) & 15;
        let high = if format.bits == 5 { high[col % 32] >> (col / 32) & 1 } else { 0 };
        *quant = (low | high << 4).cast_signed();
    }
}

fn read_halves(bytes: &[u8], block: &mut Block) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    block.d[0] = half_at(d, 0);
    block.scales.iter_mut().zip(scales).for_each(|(to, from)| *to = from.cast_signed());
    for (col, quant) in block.quants.iter_mut().enumerate() {
        // Halves of 128 columns; in each, four runs of 32 share their bytes.
        let (half, run, lane) = (col / 128, col / 32 % 4, col % 32);
        let low = low[half * 64 + run % 2 * 32 + lane] >> (run / 2 * 4) & 15;
        let high = high[half * 32 + lane] >> (run * 2) & 3;
        *quant = (low | high << 4).cast_signed() - 32;
    }
}

fn half_at(bytes: &[u8], start: usize) -> f16 {
    f16::from_le_bytes([bytes[start], bytes[start + 1]])
}
