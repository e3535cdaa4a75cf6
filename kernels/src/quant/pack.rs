//! Makes the tiles of a matrix, by all threads.

use candle_core::{Result, Tensor};
use parking_lot::Mutex;

use super::block::Block;
use super::quantize::QuantizeSpan;
use super::tile::{Place, write};
use super::{Format, TILE_ROWS};
use crate::cpu::Cpu;
use crate::packed::{AlignedBytes, host_values};

/// Quantizes the rows of floating-point matrices with `cols` columns, below one another.
pub(crate) fn pack(
    cpu: &Cpu,
    format: Format,
    cols: usize,
    parts: &[Tensor],
) -> Result<AlignedBytes> {
    let mut starts = Vec::with_capacity(parts.len());
    let mut rows = 0;
    for part in parts {
        starts.push(rows);
        rows += part.dim(0)?;
    }
    fill(cpu, format, [rows, cols], |row, blocks| {
        let part = starts.partition_point(|&start| start <= row) - 1;
        let values = host_values(&parts[part].narrow(0, row - starts[part], 1)?)?;
        for (block, values) in blocks.iter_mut().zip(values.chunks(format.span())) {
            *block = cpu.isa.run(QuantizeSpan { format, values });
        }
        Ok(())
    })
}

/// Calls `make` once a row, for its spans, and writes what it makes.
pub(super) fn fill(
    cpu: &Cpu,
    format: Format,
    [rows, cols]: [usize; 2],
    make: impl Fn(usize, &mut [Block]) -> Result<()> + Sync,
) -> Result<AlignedBytes> {
    let tile_bytes = format.tile_bytes(cols);
    let mut bytes = AlignedBytes::zeroed(rows.div_ceil(TILE_ROWS) * tile_bytes);
    let error = Mutex::new(None);
    cpu.pool.for_each_chunk(usize::MAX, bytes.as_mut_slice(), tile_bytes, |tile, bytes| {
        let first = tile * TILE_ROWS;
        let mut blocks = vec![Block::ZERO; cols.div_ceil(format.span())];
        for (lane, row) in (first..rows.min(first + TILE_ROWS)).enumerate() {
            if let Err(found) = make(row, &mut blocks) {
                error.lock().get_or_insert(found);
                return;
            }
            for (span, block) in blocks.iter().enumerate() {
                write(format, cols, bytes, Place { lane, span }, block);
            }
        }
    });
    match error.into_inner() {
        Some(error) => Err(error),
        None => Ok(bytes),
    }
}
