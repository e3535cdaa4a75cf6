//! A few rows times a chunk of a tile of weights: products in tiles, then what the scales make of them.
#![expect(unsafe_code, reason = "tile instructions, and loads and stores through pointers")]

use std::arch::asm;
use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi16, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_storeu_ps,
};

use super::super::Target;
use super::super::avx512::halves;
use super::prepare::prefetch;
use super::{CHUNK, SUMS};
use crate::gemm::Mode;
use crate::quant::{BLOCK, Family, Format, TILE_ROWS};

/// Up to 16 rows times one chunk of a tile of weights.
pub(super) struct Job<'a> {
    pub(super) header: *const u8,
    pub(super) prepared: *const u8,
    pub(super) blocks: usize,
    pub(super) codes: *const u8,
    pub(super) stride: usize,
    pub(super) scales: *const f32,
    pub(super) scales_stride: usize,
    pub(super) code_sums: *const i32,
    pub(super) code_sums_stride: usize,
    pub(super) sums: *mut u8,
    pub(super) results: *mut f32,
    pub(super) results_stride: usize,
    /// Rows, in fours.
    pub(super) row_groups: usize,
    /// Whether there are no results yet.
    pub(super) begins: bool,
    /// Where results go if these are all.
    pub(super) end: Option<End<'a>>,
}

/// Rows of a target that get the lanes of one tile.
pub(super) struct End<'a> {
    pub(super) target: &'a Target<'a>,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) lane: usize,
}

impl End<'_> {
    /// Finishes the sums of a row.
    ///
    /// # Safety
    /// As [`multiply`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn put(&self, row: usize, mut sums: __m512) {
        if self.rows <= row {
            return;
        }
        let Target { out, width, finish } = self.target;
        let lanes = TILE_ROWS.min(width - self.lane);
        let mask = u16::MAX >> (TILE_ROWS - lanes);
        let start = (self.row + row) * width + self.lane;
        // SAFETY: the caller's contract; masks keep loads and stores within the slices.
        unsafe {
            let out = out.part(start..start + lanes);
            if let Some(bias) = finish.bias {
                let bias = &bias[self.lane..self.lane + lanes];
                sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, bias.as_ptr()));
            }
            if let Mode::Add = finish.mode {
                sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out.as_ptr()), sums);
            }
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sums);
        }
    }
}

impl Job<'_> {
    /// The results so far of a row.
    ///
    /// # Safety
    /// As [`Job::dots`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(&self, row: usize) -> __m512 {
        if self.begins {
            return _mm512_setzero_ps();
        }
        // SAFETY: the caller's contract.
        unsafe { _mm512_loadu_ps(self.results.add(row * self.results_stride)) }
    }

    /// # Safety
    /// As [`Job::dots`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(&self, row: usize, sums: __m512) {
        // SAFETY: the caller's contract.
        unsafe {
            match &self.end {
                Some(end) => end.put(row, sums),
                None => _mm512_storeu_ps(self.results.add(row * self.results_stride), sums),
            }
        }
    }

    /// Multiplies each block of 32 columns into a tile of sums.
    ///
    /// # Safety
    /// As [`multiply`]; all pointers must lead to what the format needs for the rows.
    pub(super) unsafe fn dots(&self, format: Format) {
        let (weights, step) = if format.bits == 8 {
            (self.header.wrapping_add(format.header()), format.span_bytes())
        } else {
            (self.prepared, 2 * BLOCK * TILE_ROWS)
        };
        for block in (0..self.blocks).step_by(2) {
            let weights = weights.wrapping_add(block / 2 * step);
            let codes = self.codes.wrapping_add(block * BLOCK);
            let dots = self.sums.wrapping_add(block * SUMS);
            // SAFETY: the caller's contract.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{codes} + {stride}]",
                    "tileloadd tmm6, [{weights} + {line}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{dots} + {line}], tmm0",
                    codes = in(reg) codes,
                    stride = in(reg) self.stride,
                    weights = in(reg) weights,
                    dots = in(reg) dots,
                    line = in(reg) 64usize,
                    out("tmm0") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                );
                if block + 1 < self.blocks {
                    asm!(
                        "tilezero tmm1",
                        "tileloadd tmm5, [{codes} + {stride} + 32]",
                        "tileloadd tmm7, [{weights} + {line} + 512]",
                        "tdpbssd tmm1, tmm5, tmm7",
                        "tilestored [{dots} + {line} + 1024], tmm1",
                        codes = in(reg) codes,
                        stride = in(reg) self.stride,
                        weights = in(reg) weights,
                        dots = in(reg) dots,
                        line = in(reg) 64usize,
                        out("tmm1") _, out("tmm5") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        }
    }

    /// Multiplies a span with both digits, into two tiles of sums.
    ///
    /// # Safety
    /// As [`Job::dots`].
    pub(super) unsafe fn span_dots(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{codes} + {stride}]",
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm7, [{weights} + {line} + 4096]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "add {codes}, 64",
                "add {weights}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{dots} + {line}], tmm0",
                "tilestored [{dots} + {line} + 1024], tmm1",
                codes = inout(reg) self.codes => _,
                stride = in(reg) self.stride,
                weights = inout(reg) self.prepared => _,
                dots = in(reg) self.sums,
                line = in(reg) 64usize,
                steps = inout(reg) self.blocks.div_ceil(2) => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// Adds the sums, scaled, to the results.
    ///
    /// # Safety
    /// As [`Job::dots`], which came before.
    pub(super) unsafe fn add(&self, format: Format) {
        // SAFETY: the caller's contract.
        unsafe {
            match (format.family, self.row_groups) {
                (Family::Plain, 1) => self.add_blocks::<4>(format),
                (Family::Plain, 2) => self.add_blocks::<8>(format),
                (Family::Plain, 3) => self.add_blocks::<12>(format),
                (Family::Plain, _) => self.add_blocks::<16>(format),
                (Family::Mins, 1) => self.add_span::<4, true>(),
                (Family::Mins, 2) => self.add_span::<8, true>(),
                (Family::Mins, 3) => self.add_span::<12, true>(),
                (Family::Mins, _) => self.add_span::<16, true>(),
                (Family::Halves, 1) => self.add_span::<4, false>(),
                (Family::Halves, 2) => self.add_span::<8, false>(),
                (Family::Halves, 3) => self.add_span::<12, false>(),
                (Family::Halves, _) => self.add_span::<16, false>(),
            }
        }
    }

    /// # Safety
    /// As [`Job::add`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add_blocks<const ROWS: usize>(&self, format: Format) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); ROWS];
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = self.load(row);
            }
            for block in 0..self.blocks {
                let span = self.header.add(block / 2 * format.span_bytes());
                if format.bits == 8 {
                    // Counted from the job that the tiles are at: one chunk further on.
                    let next = span.wrapping_add(CHUNK / format.span() * format.span_bytes());
                    prefetch(next.wrapping_add(block % 2 * format.block()), format.block() + 64);
                }
                let d = halves(span.add(block % 2 * 32));
                let dots = self.sums.add(block * SUMS);
                let mut scale = self.scales.add(block);
                for (row, sum) in sums.iter_mut().enumerate() {
                    let dot = _mm512_cvtepi32_ps(_mm512_loadu_si512(dots.add(row * 64).cast()));
                    *sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(d, _mm512_set1_ps(*scale)), *sum);
                    scale = scale.wrapping_add(self.scales_stride);
                }
            }
            for (row, sum) in sums.iter().enumerate() {
                self.store(row, *sum);
            }
        }
    }

    /// # Safety
    /// As [`Job::add`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn add_span<const ROWS: usize, const MINS: bool>(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            let (d, dmin) = (halves(self.header), halves(self.header.add(32)));
            let mut mins = [_mm512_setzero_si512(); 4];
            for (pair, mins) in mins.iter_mut().enumerate() {
                let bytes = _mm256_loadu_si256(self.header.add(192 + pair * 32).cast());
                *mins = _mm512_cvtepu8_epi16(bytes);
            }
            for row in 0..ROWS {
                let low = _mm512_loadu_si512(self.sums.add(row * 64).cast());
                let high = _mm512_loadu_si512(self.sums.add(SUMS + row * 64).cast());
                let dot = _mm512_add_epi32(low, _mm512_slli_epi32::<7>(high));
                let scale = _mm512_set1_ps(*self.scales.add(row * self.scales_stride));
                let mut sum = self.load(row);
                sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, scale), sum);
                if MINS {
                    let mut min = _mm512_setzero_si512();
                    for (pair, mins) in mins.iter().enumerate() {
                        let codes = *self.code_sums.add(row * self.code_sums_stride + pair);
                        min = _mm512_dpwssd_epi32(min, *mins, _mm512_set1_epi32(codes));
                    }
                    let dmin = _mm512_mul_ps(dmin, scale);
                    sum = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), dmin, sum);
                }
                self.store(row, sum);
            }
        }
    }
}
