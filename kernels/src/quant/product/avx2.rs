//! Products with 256-bit vectors: the 16 rows of a tile in two halves.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_cvtsi64_si128, _mm_loadl_epi64, _mm_loadu_si128,
    _mm_prefetch, _mm256_abs_epi8, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi8_epi16,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16, _mm256_cvtepu8_epi32, _mm256_cvtph_ps,
    _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_mullo_epi32, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8,
    _mm256_sll_epi16, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srl_epi16, _mm256_storeu_ps,
    _mm256_sub_epi32,
};

use super::{Call, Pointers, format};
use crate::quant::{BLOCK, Family};

/// Rows that one call takes.
pub(super) const MAX_ROWS: usize = 2;

/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 2 << 10;

/// Sums of both halves of a tile for each row.
type Dots<const ROWS: usize> = [[__m256i; 2]; ROWS];

/// Computes a call of 1 to [`MAX_ROWS`] rows.
///
/// # Safety
/// The processor must have the instructions, and the call must be complete.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run(call: &mut Call<'_>) {
    let p = Pointers::of(call);
    // SAFETY: the caller's contract.
    unsafe {
        match (call.format.family, call.format.bits) {
            (Family::Plain, 8) => rows::<0, 8>(call.rows, p),
            (Family::Plain, 4) => rows::<0, 4>(call.rows, p),
            (Family::Plain, _) => rows::<0, 5>(call.rows, p),
            (Family::Mins, 4) => rows::<1, 4>(call.rows, p),
            (Family::Mins, _) => rows::<1, 5>(call.rows, p),
            (Family::Halves, _) => rows::<2, 6>(call.rows, p),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const FAMILY: usize, const BITS: usize>(rows: usize, p: Pointers) {
    // SAFETY: as in `run`.
    unsafe { if rows == 1 { product::<FAMILY, BITS, 1>(p) } else { product::<FAMILY, BITS, 2>(p) } }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product<const FAMILY: usize, const BITS: usize, const ROWS: usize>(p: Pointers) {
    let format = const { format::<FAMILY, BITS>() };
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for start in (0..p.cols).step_by(format.span()) {
        let span = start / format.span();
        let blocks = format.span().min(p.cols - start) / BLOCK;
        // SAFETY: spans lie within the tile, and blocks within the span.
        unsafe {
            let header = p.tile.add(span * format.span_bytes());
            if FAMILY == 0 {
                plain::<BITS, ROWS>(p, header, start / BLOCK, blocks, &mut sums);
            } else {
                scaled::<FAMILY, BITS, ROWS>(p, header, span, blocks, &mut sums);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: the call has room for its rows.
            unsafe { _mm256_storeu_ps(p.out.add(row * 16 + half * 8), *sum) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn plain<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    header: *const u8,
    first: usize,
    blocks: usize,
    sums: &mut [[__m256; 2]; ROWS],
) {
    let format = const { format::<0, BITS>() };
    for index in 0..blocks {
        let block = first + index;
        // SAFETY: the block exists in the tile and in every row.
        unsafe {
            let codes = header.add(format.header() + index * format.block());
            prefetch(codes, format.block());
            let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
            if BITS < 8 {
                for (row, dots) in dots.iter_mut().enumerate() {
                    *dots = [_mm256_set1_epi32(*p.sums.add(row * p.sums_stride + block)); 2];
                }
            }
            dot_groups::<BITS, ROWS>(p, codes, block, 0, 8, &mut dots);
            for (row, (sums, dots)) in sums.iter_mut().zip(&dots).enumerate() {
                let scale = *p.scales.add(row * p.scales_stride + block);
                add(sums, dots, header.add(index * 32), scale);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scaled<const FAMILY: usize, const BITS: usize, const ROWS: usize>(
    p: Pointers,
    header: *const u8,
    span: usize,
    blocks: usize,
    sums: &mut [[__m256; 2]; ROWS],
) {
    let format = const { format::<FAMILY, BITS>() };
    let mut totals = [[_mm256_setzero_si256(); 2]; ROWS];
    let mut mins = [[_mm256_setzero_si256(); 2]; ROWS];
    // SAFETY: the span exists in the tile and in every row.
    unsafe {
        for index in 0..blocks {
            let codes = header.add(format.header() + index * format.block());
            prefetch(codes, format.block());
            let block = span * 8 + index;
            if FAMILY == 1 {
                let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
                dot_groups::<BITS, ROWS>(p, codes, block, 0, 8, &mut dots);
                for half in 0..2 {
                    let scales = _mm_loadl_epi64(header.add(64 + index * 16 + half * 8).cast());
                    multiply(&mut totals, &dots, half, _mm256_cvtepu8_epi32(scales));
                }
                continue;
            }
            let (mut low, mut high) = (totals_of::<ROWS>(), totals_of::<ROWS>());
            dot_groups::<BITS, ROWS>(p, codes, block, 0, 4, &mut low);
            dot_groups::<BITS, ROWS>(p, codes, block, 4, 8, &mut high);
            for half in 0..2 {
                let pairs = _mm_loadu_si128(header.add(64 + index * 32 + half * 16).cast());
                let pairs = _mm256_cvtepi8_epi16(pairs);
                let first = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(pairs));
                multiply(&mut totals, &low, half, first);
                multiply(&mut totals, &high, half, _mm256_srai_epi32::<16>(pairs));
                multiply_sums(p, &mut mins, half, span * 8 + index, pairs);
            }
        }
        if FAMILY == 1 {
            for pair in 0..4 {
                for half in 0..2 {
                    let bytes = _mm_loadu_si128(header.add(192 + pair * 32 + half * 16).cast());
                    multiply_sums(p, &mut mins, half, span * 4 + pair, _mm256_cvtepu8_epi16(bytes));
                }
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let scale = *p.scales.add(row * p.scales_stride + span);
            if FAMILY == 1 {
                add(sums, &totals[row], header, scale);
                subtract(sums, &mins[row], header.add(32), scale);
                continue;
            }
            for (total, offset) in totals[row].iter_mut().zip(&mins[row]) {
                *total = _mm256_sub_epi32(*total, _mm256_slli_epi32::<5>(*offset));
            }
            add(sums, &totals[row], header, scale);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn totals_of<const ROWS: usize>() -> Dots<ROWS> {
    [[_mm256_setzero_si256(); 2]; ROWS]
}

/// Adds the products of `dots` and the scales of one half.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply<const ROWS: usize>(
    totals: &mut Dots<ROWS>,
    dots: &Dots<ROWS>,
    half: usize,
    scales: __m256i,
) {
    for (totals, dots) in totals.iter_mut().zip(dots) {
        totals[half] = _mm256_add_epi32(totals[half], _mm256_mullo_epi32(dots[half], scales));
    }
}

/// Adds the products of pairs of factors and word `word` of the sums of codes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn multiply_sums<const ROWS: usize>(
    p: Pointers,
    totals: &mut Dots<ROWS>,
    half: usize,
    word: usize,
    pairs: __m256i,
) {
    for (row, totals) in totals.iter_mut().enumerate() {
        // SAFETY: the caller passes a word that every row has.
        let sums = _mm256_set1_epi32(unsafe { *p.sums.add(row * p.sums_stride + word) });
        totals[half] = _mm256_add_epi32(totals[half], _mm256_madd_epi16(pairs, sums));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add(sums: &mut [__m256; 2], dots: &[__m256i; 2], weights: *const u8, scale: f32) {
    for (half, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller passes 16 f16.
        let weights = unsafe { halves(weights.add(half * 16)) };
        let factor = _mm256_mul_ps(weights, _mm256_set1_ps(scale));
        *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*dot), factor, *sum);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn subtract(sums: &mut [__m256; 2], dots: &[__m256i; 2], weights: *const u8, scale: f32) {
    for (half, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller passes 16 f16.
        let weights = unsafe { halves(weights.add(half * 16)) };
        let factor = _mm256_mul_ps(weights, _mm256_set1_ps(scale));
        *sum = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(*dot), factor, *sum);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn halves(values: *const u8) -> __m256 {
    // SAFETY: the caller passes eight f16.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(values.cast()) })
}

/// Adds the products of some groups of four columns for every row.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_groups<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    codes: *const u8,
    block: usize,
    from: usize,
    to: usize,
    dots: &mut Dots<ROWS>,
) {
    let ones = _mm256_set1_epi16(1);
    for group in from..to {
        for half in 0..2 {
            // SAFETY: the block has this group, in the tile and in every row.
            unsafe {
                let weights = load::<BITS>(codes, group, half);
                for (row, dots) in dots.iter_mut().enumerate() {
                    let x =
                        p.codes.add(row * p.stride + block * BLOCK + group * 4).cast::<[u8; 4]>();
                    let x = _mm256_set1_epi32(i32::from_le_bytes(x.read()));
                    // Products of an unsigned and a signed byte, in pairs: at most 128 * 127 * 2,
                    // which 16 bits hold.
                    let pairs = if BITS == 8 {
                        let signed = _mm256_sign_epi8(x, weights);
                        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed)
                    } else {
                        _mm256_maddubs_epi16(weights, x)
                    };
                    dots[half] = _mm256_add_epi32(dots[half], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
}

/// The codes of four columns of half the rows: signed if they have 8 bits, otherwise with their
/// offset.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load<const BITS: usize>(codes: *const u8, group: usize, half: usize) -> __m256i {
    // SAFETY: the caller passes a block that has this group.
    unsafe {
        let line = |index: usize| _mm256_loadu_si256(codes.add(index * 64 + half * 32).cast());
        if BITS == 8 {
            return line(group);
        }
        let low = shift_right(line(group / 2), group % 2 * 4);
        let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
        let high = match BITS {
            5 => shift_to(line(4), group, 16),
            6 => shift_to(line(4 + group / 4), group % 4 * 2, 48),
            _ => return low,
        };
        _mm256_or_si256(low, high)
    }
}

/// The bits of each byte from `from` on, moved to bit 4 and cut to `mask`.
#[inline]
#[target_feature(enable = "avx2")]
fn shift_to(bytes: __m256i, from: usize, mask: i8) -> __m256i {
    let moved = if from < 4 {
        _mm256_sll_epi16(bytes, _mm_cvtsi64_si128((4 - from).cast_signed() as i64))
    } else {
        shift_right(bytes, from - 4)
    };
    _mm256_and_si256(moved, _mm256_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift_right(bytes: __m256i, by: usize) -> __m256i {
    _mm256_srl_epi16(bytes, _mm_cvtsi64_si128(by.cast_signed() as i64))
}

#[inline]
#[target_feature(enable = "avx2")]
fn prefetch(from: *const u8, len: usize) {
    for line in (0..len).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line).cast());
    }
}
