//! The product with AMX tiles: up to 16 rows times groups of 16 lanes, `bf16` with sums in `f32`.
//!
//! A left-hand value is the sum of two `bf16`, its nearest one and the nearest one of what is left:
//! 16 bits of its 24, wrong by at most one part in 2^17. Per 32 columns the tile of the first parts
//! is multiplied, then that of the second parts, into the same sums. The processor computes an
//! element from its row and its column alone, so the number of rows changes no bit of the others.
#![expect(unsafe_code, reason = "tile instructions")]
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::arch::asm;

use crate::cpu::{Kernel, TileConfig};
use crate::packed::{PAIR_DEPTH, PAIR_ROWS};

/// Rows of one tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Lanes of a row of results.
pub(crate) const LANES: usize = 64;

const _: () = assert!(LANES * size_of::<f32>() == 256, "as the instructions below have it");

/// Words of a tile of the right side: 16 pairs of columns, 16 lanes.
pub(crate) const TILE_WORDS: usize = PAIR_DEPTH / 2 * PAIR_ROWS;

/// One row of a tile: 32 `bf16` of the left side. Aligned, because a tile whose rows cross cache
/// lines takes twice as long to load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileRow(pub(crate) [u32; PAIR_DEPTH / 2]);

impl TileRow {
    pub(crate) const ZERO: Self = Self([0; PAIR_DEPTH / 2]);
}

/// One row of results, aligned for the same reason.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct SumRow(pub(crate) [f32; LANES]);

impl SumRow {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// A few rows times neighbouring groups of lanes.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[depth / 32][2][rows]`, as [`SplitRow`] writes them.
    pub(crate) left: &'a [TileRow],
    /// Number of rows, at most [`TILE_ROWS`].
    pub(crate) rows: usize,
    /// Groups of 16 lanes, `stride` words apart, each `[depth / 2][16]` words.
    pub(crate) right: &'a [u32],
    /// Words from one group to the next.
    pub(crate) stride: usize,
    /// Number of groups: 1, 2 or 4.
    pub(crate) groups: usize,
    /// Blocks of 32 columns.
    pub(crate) blocks: usize,
    /// How many bytes ahead of itself each group is fetched; nothing is for 0.
    pub(crate) ahead: usize,
    /// Whether the sums begin with this product.
    pub(crate) begins: bool,
}

/// Writes a product to `sums` `[rows][64]` if it begins them, else adds it. The first
/// `16 * groups` lanes are used.
///
/// # Safety
/// The processor must have AMX, and this process the permission to use it.
pub(crate) unsafe fn accumulate(product: Product<'_>, sums: &mut [SumRow]) {
    let Product { left, rows, right, stride, groups, blocks, ahead, begins } = product;
    if rows == 0 || blocks == 0 {
        return;
    }
    assert!(rows <= TILE_ROWS, "a tile has few rows");
    assert!(left.len() >= blocks * rows * 2, "the left side is complete");
    let needed = (groups - 1) * stride + blocks * TILE_WORDS;
    assert!(right.len() >= needed, "the right side is complete");
    assert!(sums.len() >= rows, "the result has room");
    let sums = sums.as_mut_ptr().cast::<f32>();
    let config = TileConfig::new([(0..6, rows as u8, 64), (6..8, TILE_ROWS as u8, 64)]);
    let job = Job {
        frame: Frame { config, sums },
        left: left.as_ptr(),
        part: rows * size_of::<TileRow>(),
        right: right.as_ptr(),
        stride: stride * size_of::<u32>(),
        blocks,
        ahead,
        // The same zeros for every row.
        before: if begins { (ZEROS.0.as_ptr(), 0) } else { (sums, LANES * size_of::<f32>()) },
    };
    // SAFETY: the caller's contract, and the sizes were checked above.
    unsafe {
        match groups {
            1 => job.run_1(),
            2 => job.run_2(),
            4 => job.run_4(),
            other => unreachable!("products of 1, 2 or 4 groups: {other}"),
        }
    }
}

static ZEROS: SumRow = SumRow::ZERO;

/// What the instructions read from memory.
#[repr(C, align(64))]
struct Frame {
    /// Sums in tiles 0 to 3, the left side in 4 and 5, the right in 6 and 7.
    config: TileConfig,
    sums: *mut f32,
}

struct Job {
    frame: Frame,
    left: *const TileRow,
    /// Bytes of the first parts of one block, and of the second parts.
    part: usize,
    right: *const u32,
    /// Bytes from one group to the next.
    stride: usize,
    blocks: usize,
    ahead: usize,
    /// The sums so far, and the bytes from one row of them to the next.
    before: (*const f32, usize),
}

/// Fetches a tile: 16 lines from `$from` on.
macro_rules! fetch {
    ($from:literal) => {
        concat!(
            fetch!($from, "0"),
            fetch!($from, "64"),
            fetch!($from, "128"),
            fetch!($from, "192"),
            fetch!($from, "256"),
            fetch!($from, "320"),
            fetch!($from, "384"),
            fetch!($from, "448"),
            fetch!($from, "512"),
            fetch!($from, "576"),
            fetch!($from, "640"),
            fetch!($from, "704"),
            fetch!($from, "768"),
            fetch!($from, "832"),
            fetch!($from, "896"),
            fetch!($from, "960"),
        )
    };
    ($from:literal, $offset:literal) => {
        concat!("prefetcht0 [{", $from, "} + {ahead} + ", $offset, "]\n")
    };
}

/// Multiplies one tile of the right side with the first parts of the left, and fetches ahead.
///
/// A product waits for the one before it with the same sums, so these come in turn: first parts
/// with all groups, then second parts. Loading the right side again costs less than waiting.
macro_rules! first {
    ($sums:literal, $right:literal, $from:literal) => {
        concat!(first!($sums, $right, $from, cached), fetch!($from))
    };
    ($sums:literal, $right:literal, $from:literal, cached) => {
        concat!(
            "tileloadd ",
            $right,
            ", [{",
            $from,
            "} + {line}]\n",
            "tdpbf16ps ",
            $sums,
            ", tmm4, ",
            $right,
            "\n",
        )
    };
}

/// Multiplies one tile of the right side with the second parts of the left, and goes on to the next.
macro_rules! second {
    ($sums:literal, $right:literal, $from:literal) => {
        concat!(
            "tileloadd ",
            $right,
            ", [{",
            $from,
            "} + {line}]\n",
            "tdpbf16ps ",
            $sums,
            ", tmm5, ",
            $right,
            "\n",
            "add {",
            $from,
            "}, 1024\n",
        )
    };
}

/// Runs all blocks of 32 columns: `$load` and `$store` move the sums, `$body` multiplies.
macro_rules! run {
    ($job:ident, [$($load:literal),*], [$($store:literal),*], [$($body:expr),*], {$($operands:tt)*}) => {
        asm!(
            "ldtilecfg [{frame}]",
            $($load,)*
            "2:",
            "tileloadd tmm4, [{left} + {line}]",
            "add {left}, {part}",
            "tileloadd tmm5, [{left} + {line}]",
            "add {left}, {part}",
            $($body,)*
            "dec {blocks}",
            "jnz 2b",
            "mov {frame}, [{frame} + 64]",
            "mov {row}, 256",
            $($store,)*
            "tilerelease",
            frame = inout(reg) &raw const $job.frame => _,
            left = inout(reg) $job.left => _,
            part = in(reg) $job.part,
            blocks = inout(reg) $job.blocks => _,
            before = in(reg) $job.before.0,
            row = inout(reg) $job.before.1 => _,
            line = in(reg) 64usize,
            $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Job {
    /// # Safety
    /// As [`accumulate`]; pointers and sizes belong together, and there is at least one block.
    unsafe fn run_1(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            run!(
                self,
                ["tileloadd tmm0, [{before} + {row}]"],
                ["tilestored [{frame} + {row}], tmm0"],
                [first!("tmm0", "tmm6", "right"), second!("tmm0", "tmm6", "right")],
                { right = inout(reg) self.right => _, ahead = in(reg) self.ahead, }
            );
        }
    }

    /// # Safety
    /// As for one group.
    unsafe fn run_2(&self) {
        let second = self.right.wrapping_byte_add(self.stride);
        // SAFETY: the caller's contract.
        unsafe {
            run!(
                self,
                ["tileloadd tmm0, [{before} + {row}]", "tileloadd tmm1, [{before} + {row} + 64]"],
                ["tilestored [{frame} + {row}], tmm0", "tilestored [{frame} + {row} + 64], tmm1"],
                [
                    first!("tmm0", "tmm6", "right"),
                    first!("tmm1", "tmm7", "second"),
                    second!("tmm0", "tmm6", "right"),
                    second!("tmm1", "tmm7", "second")
                ],
                {
                    right = inout(reg) self.right => _,
                    second = inout(reg) second => _,
                    ahead = in(reg) self.ahead,
                }
            );
        }
    }

    /// # Safety
    /// As for one group.
    unsafe fn run_4(&self) {
        let second = self.right.wrapping_byte_add(self.stride);
        let third = second.wrapping_byte_add(self.stride);
        let fourth = third.wrapping_byte_add(self.stride);
        macro_rules! run_4 {
            ([$($cached:ident)?], {$($ahead:tt)*}) => {
                run!(
                    self,
                    [
                        "tileloadd tmm0, [{before} + {row}]",
                        "tileloadd tmm1, [{before} + {row} + 64]",
                        "tileloadd tmm2, [{before} + {row} + 128]",
                        "tileloadd tmm3, [{before} + {row} + 192]"
                    ],
                    [
                        "tilestored [{frame} + {row}], tmm0",
                        "tilestored [{frame} + {row} + 64], tmm1",
                        "tilestored [{frame} + {row} + 128], tmm2",
                        "tilestored [{frame} + {row} + 192], tmm3"
                    ],
                    [
                        first!("tmm0", "tmm6", "right" $(, $cached)?),
                        first!("tmm1", "tmm7", "second" $(, $cached)?),
                        first!("tmm2", "tmm6", "third" $(, $cached)?),
                        first!("tmm3", "tmm7", "fourth" $(, $cached)?),
                        second!("tmm0", "tmm6", "right"),
                        second!("tmm1", "tmm7", "second"),
                        second!("tmm2", "tmm6", "third"),
                        second!("tmm3", "tmm7", "fourth")
                    ],
                    {
                        right = inout(reg) self.right => _,
                        second = inout(reg) second => _,
                        third = inout(reg) third => _,
                        fourth = inout(reg) fourth => _,
                        $($ahead)*
                    }
                )
            };
        }
        // SAFETY: the caller's contract.
        unsafe {
            if self.ahead == 0 {
                run_4!([cached], {});
            } else {
                run_4!([], { ahead = in(reg) self.ahead, });
            }
        }
    }
}

/// Splits one row of a tile of `rows` rows into parts: of `[depth / 32][2][rows]` it writes those of
/// its own row.
pub(crate) struct SplitRow<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) parts: &'a mut [TileRow],
}

impl Kernel for SplitRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let blocks = self.parts.chunks_exact_mut(2 * self.rows);
        for (values, parts) in self.values.chunks(PAIR_DEPTH).zip(blocks) {
            let mut block = [0f32; PAIR_DEPTH];
            block[..values.len()].copy_from_slice(values);
            let (mut first, mut second) = (TileRow::ZERO, TileRow::ZERO);
            for i in 0..PAIR_DEPTH / 2 {
                let (even, odd) = (split(block[2 * i]), split(block[2 * i + 1]));
                first.0[i] = even.0 >> 16 | odd.0;
                second.0[i] = even.1 >> 16 | odd.1;
            }
            parts[self.row] = first;
            parts[self.rows + self.row] = second;
        }
    }
}

/// The nearest `bf16` and the nearest one of the difference, each in the upper half of a word.
///
/// What is not finite has no second part; what would round to infinity is cut instead.
#[inline(always)]
fn split(value: f32) -> (u32, u32) {
    const HIGH: u32 = 0xffff_0000;
    const INFINITY: u32 = 0x7f80_0000;
    let round = |bits: u32| bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & HIGH;
    let bits = value.to_bits();
    let is_finite = bits & INFINITY != INFINITY;
    let is_nan = bits & !(1 << 31) > INFINITY;
    // A NaN stays one without its lower half.
    let cut = bits & HIGH | if is_nan { 1 << 22 } else { 0 };
    let rounded = round(bits);
    let is_cut = rounded & INFINITY == INFINITY || !is_finite;
    let first = if is_cut { cut } else { rounded };
    let rest = (value - f32::from_bits(first)).to_bits();
    let rest = if is_cut { rest & HIGH } else { round(rest) };
    (first, if is_finite { rest } else { 0 })
}
