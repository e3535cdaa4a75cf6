//! Weights made ready for tiles: codes without offsets, or times their integer scales.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256, _mm512_and_si512,
    _mm512_cvtepi8_epi16, _mm512_cvtepu8_epi32, _mm512_mullo_epi16, _mm512_or_si512,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_slli_epi16, _mm512_slli_epi32,
    _mm512_srai_epi16, _mm512_srai_epi32, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_epi8,
    _mm512_sub_epi16,
};

use super::super::avx512::unsigned;
use super::PREPARED;
use crate::quant::{Family, Format};

/// How far ahead weights are fetched, in bytes.
const AHEAD: usize = 3 << 10;

/// Codes less their offset.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn unpack<const BITS: usize>(from: *const u8, blocks: usize, to: *mut u8) {
    let format = Format { bits: BITS, family: Family::Plain };
    for block in 0..blocks {
        // SAFETY: the caller passes a chunk of as many blocks and room for them.
        unsafe {
            let span = from.add(block / 2 * format.span_bytes());
            let codes = span.add(format.header() + block % 2 * format.block());
            prefetch(codes, format.block());
            for group in 0..8 {
                let quants = unsigned::<BITS>(codes, group);
                let quants = _mm512_sub_epi8(quants, _mm512_set1_epi8(1 << (BITS - 1)));
                _mm512_storeu_si512(to.add((block * 8 + group) * 64).cast(), quants);
            }
        }
    }
}

/// Codes less their offset times their integer scales, in two digits: the lower one of base 128,
/// then the upper one.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn scale<const BITS: usize>(
    format: Format,
    from: *const u8,
    blocks: usize,
    to: *mut u8,
) {
    let offset = _mm512_set1_epi16(format.offset() as i16);
    for block in 0..blocks {
        // SAFETY: the caller passes a chunk of as many blocks and room for them.
        unsafe {
            let codes = from.add(format.header() + block * format.block());
            prefetch(codes, format.block());
            let scales = if BITS == 6 {
                let pairs = _mm256_loadu_si256(from.add(64 + block * 32).cast());
                let pairs = _mm512_cvtepi8_epi16(pairs);
                let low = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff));
                let high = _mm512_srai_epi32::<16>(pairs);
                [
                    _mm512_or_si512(low, _mm512_slli_epi32::<16>(low)),
                    _mm512_or_si512(
                        _mm512_and_si512(high, _mm512_set1_epi32(0xffff)),
                        _mm512_slli_epi32::<16>(high),
                    ),
                ]
            } else {
                let scales = _mm_loadu_si128(from.add(64 + block * 16).cast());
                let scales = _mm512_cvtepu8_epi32(scales);
                [_mm512_or_si512(scales, _mm512_slli_epi32::<16>(scales)); 2]
            };
            for group in 0..8 {
                let bytes = unsigned::<BITS>(codes, group);
                let even = _mm512_and_si512(bytes, _mm512_set1_epi16(0xff));
                let odd = _mm512_srli_epi16::<8>(bytes);
                let [even, odd] = [even, odd].map(|codes| {
                    _mm512_mullo_epi16(_mm512_sub_epi16(codes, offset), scales[group / 4])
                });
                let digit = _mm512_set1_epi16(127);
                let low = _mm512_or_si512(
                    _mm512_and_si512(even, digit),
                    _mm512_slli_epi16::<8>(_mm512_and_si512(odd, digit)),
                );
                let high = _mm512_or_si512(
                    _mm512_and_si512(_mm512_srai_epi16::<7>(even), _mm512_set1_epi16(0xff)),
                    _mm512_slli_epi16::<8>(_mm512_srai_epi16::<7>(odd)),
                );
                let to = to.add((block * 8 + group) * 64);
                _mm512_storeu_si512(to.cast(), low);
                _mm512_storeu_si512(to.add(PREPARED / 2).cast(), high);
            }
        }
    }
    if blocks % 2 == 1 {
        // Tiles take two blocks; activations are zero there, so anything would do.
        // SAFETY: a chunk has an even number of blocks, so there is room.
        unsafe { to.add(blocks * 512).write_bytes(0, 512) };
    }
}

/// Fetches what lies some kilobytes behind a part of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch(from: *const u8, len: usize) {
    for line in (0..len).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD + line).cast());
    }
}
