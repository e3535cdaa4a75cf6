//! Quantized weights: their layout in memory, how they are made, and products with them.
//!
//! Rows are cut into *tiles* of [`TILE_ROWS`] rows, the last one padded with zeros. A tile is read
//! from its first column to its last. Columns come in *spans*: 64 of the types with one scale a
//! block of 32, 256 of the others; the last span may have fewer blocks. A span is a header with the
//! scales of all rows, then its blocks of 32 columns.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | header | 64 | `[2][16 rows]` f16: the scales of two blocks; or `d` and `dmin` |
//! | header, `q4_k` `q5_k` | 128 + 128 | scales `[8 blocks][16 rows]` u8, mins `[4][16 rows][2 blocks]` u8 |
//! | header, `q6_k` | 256 | scales `[8 blocks][16 rows][2 halves]` i8 |
//! | block, 8 bits | 512 | `[8][16 rows][4 columns]` i8 |
//! | block, fewer bits | 256 | low nibbles are the columns `[8 g .. 8 g + 4]`, high ones the next four, as `[4][16 rows][4]` |
//! | block, 5 bits more | 64 | `[16 rows][4]`: bit `g` is the fifth bit of group `g` of four columns |
//! | block, 6 bits more | 128 | `[2][16 rows][4]`: two bits each of four groups of four columns |
//!
//! The integers and scales are those of the GGML types with the same names: `value = d * (code -
//! offset)`, or `d * scale * code - dmin * min`, or `d * scale * (code - offset)` with a scale every
//! 16 columns.
//!
//! A product quantizes activations to 8 bits, a scale every 32 columns (256 for the types with
//! spans of 256), sums integers exactly, and adds the sums in f32 in ascending order with one
//! fused multiply-add a span or block. So every path gives the same bits for any number of rows.

mod activations;
mod block;
mod ggml;
mod pack;
mod product;
mod quantize;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use ggml::{import, row_bytes};
pub(crate) use pack::pack;
pub(crate) use product::{Matrix, multiply};
pub(crate) use tile::read_row;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

/// How one quantized type is laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Format {
    /// Bits of a code.
    pub(crate) bits: usize,
    /// What scales the codes.
    pub(crate) family: Family,
}

/// What scales the codes of a type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    /// An f16 scale a block.
    Plain,
    /// An f16 scale and minimum a span, times small integers a block.
    Mins,
    /// An f16 scale a span, times small integers half a block.
    Halves,
}

impl Format {
    /// Columns of a full span.
    pub(crate) const fn span(self) -> usize {
        match self.family {
            Family::Plain => 64,
            Family::Mins | Family::Halves => 256,
        }
    }

    /// Columns that share one scale of the activations.
    pub(crate) const fn grain(self) -> usize {
        match self.family {
            Family::Plain => BLOCK,
            Family::Mins | Family::Halves => 256,
        }
    }

    /// What is subtracted from a code.
    pub(crate) const fn offset(self) -> i32 {
        match self.family {
            Family::Plain | Family::Halves => 1 << (self.bits - 1),
            Family::Mins => 0,
        }
    }

    /// Bytes before the blocks of a span.
    pub(crate) const fn header(self) -> usize {
        match self.family {
            Family::Plain => 64,
            Family::Mins | Family::Halves => 320,
        }
    }

    /// Bytes of a block.
    pub(crate) const fn block(self) -> usize {
        BLOCK * TILE_ROWS * self.bits / 8
    }

    /// Bytes of a full span.
    pub(crate) const fn span_bytes(self) -> usize {
        self.header() + self.span() / BLOCK * self.block()
    }

    /// Bytes of a tile of `cols` columns, which are whole blocks.
    pub(crate) const fn tile_bytes(self, cols: usize) -> usize {
        cols.div_ceil(self.span()) * self.header() + cols / BLOCK * self.block()
    }
}
