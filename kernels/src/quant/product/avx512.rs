//! Products with 512-bit vectors and VNNI: the 16 rows of a tile side by side.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_prefetch,
    _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi8_epi16,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sll_epi16,
    _mm512_slli_epi32, _mm512_srai_epi32, _mm512_srl_epi16, _mm512_storeu_ps, _mm512_sub_epi32,
    _mm512_xor_si512,
};

use super::{Call, Pointers, format};
use crate::quant::{BLOCK, Family};

/// Rows that one call takes.
pub(super) const MAX_ROWS: usize = 8;

/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 2 << 10;

/// Computes a call of 1 to [`MAX_ROWS`] rows.
///
/// # Safety
/// The processor must have the instructions, and the call must be complete.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<const FAMILY: usize, const BITS: usize>(rows: usize, p: Pointers) {
    // SAFETY: as in `run`.
    unsafe {
        match rows {
            1 => product::<FAMILY, BITS, 1>(p),
            2 => product::<FAMILY, BITS, 2>(p),
            3 => product::<FAMILY, BITS, 3>(p),
            4 => product::<FAMILY, BITS, 4>(p),
            5 => product::<FAMILY, BITS, 5>(p),
            6 => product::<FAMILY, BITS, 6>(p),
            7 => product::<FAMILY, BITS, 7>(p),
            _ => product::<FAMILY, BITS, 8>(p),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn product<const FAMILY: usize, const BITS: usize, const ROWS: usize>(p: Pointers) {
    let format = const { format::<FAMILY, BITS>() };
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for start in (0..p.cols).step_by(format.span()) {
        let span = start / format.span();
        let blocks = format.span().min(p.cols - start) / BLOCK;
        // SAFETY: spans lie within the tile, and blocks within the span.
        unsafe {
            let header = p.tile.add(span * format.span_bytes());
            prefetch(header, format.header());
            match FAMILY {
                0 => plain::<BITS, ROWS>(p, header, start / BLOCK, blocks, &mut sums),
                1 => with_mins::<BITS, ROWS>(p, header, span, blocks, &mut sums),
                _ => with_halves::<BITS, ROWS>(p, header, span, blocks, &mut sums),
            }
        }
    }
    for (row, sum) in sums.into_iter().enumerate() {
        // SAFETY: the call has room for its rows.
        unsafe { _mm512_storeu_ps(p.out.add(row * 16), sum) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn plain<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    header: *const u8,
    first: usize,
    blocks: usize,
    sums: &mut [__m512; ROWS],
) {
    let format = const { format::<0, BITS>() };
    for index in 0..blocks {
        let block = first + index;
        // SAFETY: the block exists in the tile and in every row.
        unsafe {
            let codes = header.add(format.header() + index * format.block());
            prefetch(codes, format.block());
            let d = halves(header.add(index * 32));
            let mut dots = [_mm512_setzero_si512(); ROWS];
            for (row, dot) in dots.iter_mut().enumerate() {
                *dot = _mm512_set1_epi32(*p.sums.add(row * p.sums_stride + block));
            }
            for group in 0..8 {
                dot::<BITS, ROWS>(p, codes, block, group, &mut dots);
            }
            for (row, (sum, dot)) in sums.iter_mut().zip(&dots).enumerate() {
                let scale = _mm512_set1_ps(*p.scales.add(row * p.scales_stride + block));
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*dot), _mm512_mul_ps(d, scale), *sum);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn with_mins<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    header: *const u8,
    span: usize,
    blocks: usize,
    sums: &mut [__m512; ROWS],
) {
    let format = const { format::<1, BITS>() };
    let mut totals = [_mm512_setzero_si512(); ROWS];
    // SAFETY: the span exists in the tile and in every row.
    unsafe {
        for index in 0..blocks {
            let codes = header.add(format.header() + index * format.block());
            prefetch(codes, format.block());
            let mut dots = [_mm512_setzero_si512(); ROWS];
            for group in 0..8 {
                dot::<BITS, ROWS>(p, codes, span * 8 + index, group, &mut dots);
            }
            let scales = _mm_loadu_si128(header.add(64 + index * 16).cast());
            let scales = _mm512_cvtepu8_epi32(scales);
            for (total, dot) in totals.iter_mut().zip(&dots) {
                *total = _mm512_add_epi32(*total, _mm512_mullo_epi32(*dot, scales));
            }
        }
        let mut mins = [_mm512_setzero_si512(); 4];
        for (pair, mins) in mins.iter_mut().enumerate() {
            *mins = _mm512_cvtepu8_epi16(_mm256_loadu_si256(header.add(192 + pair * 32).cast()));
        }
        let (d, dmin) = (halves(header), halves(header.add(32)));
        for (row, (sum, total)) in sums.iter_mut().zip(&totals).enumerate() {
            let scale = _mm512_set1_ps(*p.scales.add(row * p.scales_stride + span));
            let mut min = _mm512_setzero_si512();
            for (pair, mins) in mins.iter().enumerate() {
                let codes = *p.sums.add(row * p.sums_stride + span * 4 + pair);
                min = _mm512_dpwssd_epi32(min, *mins, _mm512_set1_epi32(codes));
            }
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*total), _mm512_mul_ps(d, scale), *sum);
            *sum = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), _mm512_mul_ps(dmin, scale), *sum);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn with_halves<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    header: *const u8,
    span: usize,
    blocks: usize,
    sums: &mut [__m512; ROWS],
) {
    let format = const { format::<2, BITS>() };
    let mut totals = [_mm512_setzero_si512(); ROWS];
    let mut offsets = [_mm512_setzero_si512(); ROWS];
    // SAFETY: the span exists in the tile and in every row.
    unsafe {
        for index in 0..blocks {
            let codes = header.add(format.header() + index * format.block());
            prefetch(codes, format.block());
            let mut low = [_mm512_setzero_si512(); ROWS];
            let mut high = [_mm512_setzero_si512(); ROWS];
            for group in 0..4 {
                dot::<BITS, ROWS>(p, codes, span * 8 + index, group, &mut low);
            }
            for group in 4..8 {
                dot::<BITS, ROWS>(p, codes, span * 8 + index, group, &mut high);
            }
            let pairs = _mm256_loadu_si256(header.add(64 + index * 32).cast());
            let pairs = _mm512_cvtepi8_epi16(pairs);
            let first = _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs));
            let second = _mm512_srai_epi32::<16>(pairs);
            for row in 0..ROWS {
                let scaled = _mm512_add_epi32(
                    _mm512_mullo_epi32(low[row], first),
                    _mm512_mullo_epi32(high[row], second),
                );
                totals[row] = _mm512_add_epi32(totals[row], scaled);
                let codes = *p.sums.add(row * p.sums_stride + span * 8 + index);
                let codes = _mm512_set1_epi32(codes);
                offsets[row] = _mm512_dpwssd_epi32(offsets[row], pairs, codes);
            }
        }
        let d = halves(header);
        for (row, sum) in sums.iter_mut().enumerate() {
            let scale = _mm512_set1_ps(*p.scales.add(row * p.scales_stride + span));
            let total = _mm512_sub_epi32(totals[row], _mm512_slli_epi32::<5>(offsets[row]));
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(d, scale), *sum);
        }
    }
}

/// Adds the products of four columns, `group` of `block`, for every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn dot<const BITS: usize, const ROWS: usize>(
    p: Pointers,
    codes: *const u8,
    block: usize,
    group: usize,
    dots: &mut [__m512i; ROWS],
) {
    // SAFETY: the block has this group, in the tile and in every row.
    unsafe {
        let weights = unsigned::<BITS>(codes, group);
        for (row, dot) in dots.iter_mut().enumerate() {
            let x = p.codes.add(row * p.stride + block * BLOCK + group * 4).cast::<[u8; 4]>();
            *dot =
                _mm512_dpbusd_epi32(*dot, weights, _mm512_set1_epi32(i32::from_le_bytes(x.read())));
        }
    }
}

/// The codes of four columns as unsigned bytes, their offset included.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn unsigned<const BITS: usize>(codes: *const u8, group: usize) -> __m512i {
    // SAFETY: the caller passes a block that has this group.
    unsafe {
        let load = |index: usize| _mm512_loadu_si512(codes.add(index * 64).cast());
        if BITS == 8 {
            return _mm512_xor_si512(load(group), _mm512_set1_epi8(-128));
        }
        let low = shift_right(load(group / 2), group % 2 * 4);
        let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
        let high = match BITS {
            5 => shift_to(load(4), group, 16),
            6 => shift_to(load(4 + group / 4), group % 4 * 2, 48),
            _ => return low,
        };
        _mm512_or_si512(low, high)
    }
}

/// The bits of each byte from `from` on, moved to bit 4 and cut to `mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shift_to(bytes: __m512i, from: usize, mask: i8) -> __m512i {
    let moved = if from < 4 {
        _mm512_sll_epi16(bytes, _mm_cvtsi64_si128((4 - from).cast_signed() as i64))
    } else {
        shift_right(bytes, from - 4)
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shift_right(bytes: __m512i, by: usize) -> __m512i {
    _mm512_srl_epi16(bytes, _mm_cvtsi64_si128(by.cast_signed() as i64))
}

/// Sixteen f16 as f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn halves(values: *const u8) -> __m512 {
    // SAFETY: the caller passes 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(values.cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(from: *const u8, len: usize) {
    for line in (0..len).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line).cast());
    }
}
