//! The product with AMX tiles: up to 16 rows times groups of 16 lanes, `bf16` with sums in `f32`.
//!
//! A left-hand value is the sum of two `bf16`, its nearest one and the nearest one of what is left:
//! 16 bits of its 24, wrong by at most one part in 2^17. Per 32 columns the tile of the first parts
//! is multiplied, then that of the second parts, into the same sums. The processor computes an
//! element from its row and its column alone, so the number of rows changes no bit of the others.
#![expect(unsafe_code, reason = "tile instructions")]
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::arch::asm;

use crate::cpu::Kernel;
use crate::packed::{PAIR_DEPTH, PAIR_ROWS};

/// Rows of one tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Lanes of a row of results.
pub(crate) const LANES: usize = 64;

/// Words of a tile of the right side: 16 pairs of columns, 16 lanes.
pub(crate) const TILE_WORDS: usize = PAIR_DEPTH / 2 * PAIR_ROWS;

/// Words of one row of 32 columns on the left side, first parts and second parts together.
pub(crate) const SPLIT_WORDS: usize = PAIR_DEPTH;

/// A few rows times neighbouring groups of lanes.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[depth / 32][2][rows][16]` words, as [`SplitRow`] writes them.
    pub(crate) left: &'a [u32],
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
    /// How many bytes ahead of itself each group is fetched.
    pub(crate) ahead: usize,
}

/// Adds a product to `sums` `[rows][64]`, whose first `16 * groups` lanes are used.
///
/// # Safety
/// The processor must have AMX, and this process the permission to use it.
pub(crate) unsafe fn accumulate(product: Product<'_>, sums: &mut [f32]) {
    let Product { left, rows, right, stride, groups, blocks, ahead } = product;
    if rows == 0 || blocks == 0 {
        return;
    }
    assert!(rows <= TILE_ROWS, "a tile has few rows");
    assert!(left.len() >= blocks * rows * SPLIT_WORDS, "the left side is complete");
    let needed = (groups - 1) * stride + blocks * TILE_WORDS;
    assert!(right.len() >= needed, "the right side is complete");
    assert!(sums.len() >= rows * LANES, "the result has room");
    let config = Config::new(rows as u8);
    let job = Job {
        config: &raw const config,
        left: left.as_ptr(),
        part: rows * SPLIT_WORDS / 2 * size_of::<u32>(),
        right: right.as_ptr(),
        stride: stride * size_of::<u32>(),
        blocks,
        ahead,
        sums: sums.as_mut_ptr(),
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

/// What `LDTILECFG` reads: sums in tiles 0 to 3, the left side in 4 and 5, the right in 6 and 7.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    fn new(rows: u8) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(64);
        config.rows[..6].fill(rows);
        config.rows[6..8].fill(TILE_ROWS as u8);
        config
    }
}

struct Job {
    config: *const Config,
    left: *const u32,
    /// Bytes of the first parts of one block, and of the second parts.
    part: usize,
    right: *const u32,
    /// Bytes from one group to the next.
    stride: usize,
    blocks: usize,
    ahead: usize,
    sums: *mut f32,
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

/// Multiplies one tile of the right side with both parts of the left.
macro_rules! multiply {
    ($sums:literal, $right:literal, $from:literal) => {
        concat!(
            "tileloadd ",
            $right,
            ", [{",
            $from,
            "} + {line}]\n",
            fetch!($from),
            "tdpbf16ps ",
            $sums,
            ", tmm4, ",
            $right,
            "\n",
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
            "ldtilecfg [{config}]",
            $($load,)*
            "2:",
            "tileloadd tmm4, [{left} + {line}]",
            "add {left}, {part}",
            "tileloadd tmm5, [{left} + {line}]",
            "add {left}, {part}",
            $($body,)*
            "dec {blocks}",
            "jnz 2b",
            $($store,)*
            "tilerelease",
            config = in(reg) $job.config,
            left = inout(reg) $job.left => _,
            part = in(reg) $job.part,
            blocks = inout(reg) $job.blocks => _,
            ahead = in(reg) $job.ahead,
            sums = in(reg) $job.sums,
            row = in(reg) LANES * size_of::<f32>(),
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
                ["tileloadd tmm0, [{sums} + {row}]"],
                ["tilestored [{sums} + {row}], tmm0"],
                [multiply!("tmm0", "tmm6", "right")],
                { right = inout(reg) self.right => _, }
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
                ["tileloadd tmm0, [{sums} + {row}]", "tileloadd tmm1, [{sums} + {row} + 64]"],
                ["tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 64], tmm1"],
                [multiply!("tmm0", "tmm6", "right"), multiply!("tmm1", "tmm7", "second")],
                {
                    right = inout(reg) self.right => _,
                    second = inout(reg) second => _,
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
        // SAFETY: the caller's contract.
        unsafe {
            run!(
                self,
                [
                    "tileloadd tmm0, [{sums} + {row}]",
                    "tileloadd tmm1, [{sums} + {row} + 64]",
                    "tileloadd tmm2, [{sums} + {row} + 128]",
                    "tileloadd tmm3, [{sums} + {row} + 192]"
                ],
                [
                    "tilestored [{sums} + {row}], tmm0",
                    "tilestored [{sums} + {row} + 64], tmm1",
                    "tilestored [{sums} + {row} + 128], tmm2",
                    "tilestored [{sums} + {row} + 192], tmm3"
                ],
                [
                    multiply!("tmm0", "tmm6", "right"),
                    multiply!("tmm1", "tmm7", "second"),
                    multiply!("tmm2", "tmm6", "third"),
                    multiply!("tmm3", "tmm7", "fourth")
                ],
                {
                    right = inout(reg) self.right => _,
                    second = inout(reg) second => _,
                    third = inout(reg) third => _,
                    fourth = inout(reg) fourth => _,
                }
            );
        }
    }
}

/// Splits one row of a tile of `rows` rows into parts: `[depth / 32][2][rows][16]` words, of which
/// it writes those of its own row.
pub(crate) struct SplitRow<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) words: &'a mut [u32],
}

impl Kernel for SplitRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let blocks = self.words.chunks_exact_mut(self.rows * SPLIT_WORDS);
        for (values, words) in self.values.chunks(PAIR_DEPTH).zip(blocks) {
            let mut block = [0f32; PAIR_DEPTH];
            block[..values.len()].copy_from_slice(values);
            let (first, second) = words.split_at_mut(self.rows * SPLIT_WORDS / 2);
            let place = self.row * SPLIT_WORDS / 2;
            let first = &mut first[place..place + SPLIT_WORDS / 2];
            let second = &mut second[place..place + SPLIT_WORDS / 2];
            for i in 0..SPLIT_WORDS / 2 {
                let (even, odd) = (split(block[2 * i]), split(block[2 * i + 1]));
                first[i] = even.0 >> 16 | odd.0;
                second[i] = even.1 >> 16 | odd.1;
            }
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
