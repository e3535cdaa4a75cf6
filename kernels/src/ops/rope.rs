//! Rotary position embedding, in the half-rotation form of Hugging Face checkpoints.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candle_core::{DType, Result, Tensor, bail};

use super::{check_dtype, check_heads, for_each_row};
use crate::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::cuda;
use crate::view::with_u32;

/// Positions whose angles are computed together, at the first use of one of them.
const PAGE: usize = 256;

/// The id of the next table.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Cosines and sines of every position, computed when first needed.
///
/// A context of 128k positions would cost tens of megabytes and much of a start when computed at
/// once.
#[derive(Debug)]
pub struct RopeTable {
    inverse_frequencies: Vec<f32>,
    attention_factor: f32,
    max_len: usize,
    pages: Vec<OnceLock<Vec<f32>>>,
    id: u64,
}

impl RopeTable {
    /// A table for positions below `max_len`.
    ///
    /// `inverse_frequencies` has one entry per rotated pair, after any scaling (llama3, linear,
    /// dynamic, yarn) that the model asks for; cosines and sines are multiplied by
    /// `attention_factor` (1 but for yarn and longrope).
    pub fn new(inverse_frequencies: &[f32], attention_factor: f32, max_len: usize) -> Self {
        let pages = std::iter::repeat_with(OnceLock::new).take(max_len.div_ceil(PAGE)).collect();
        let inverse_frequencies = inverse_frequencies.to_vec();
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Self { inverse_frequencies, attention_factor, max_len, pages, id }
    }

    /// Tells tables apart; not zero.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Rotated width of a head: twice the number of frequencies.
    pub fn rotary_dim(&self) -> usize {
        2 * self.inverse_frequencies.len()
    }

    /// Positions must be below this.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// Cosines and sines of a position below `max_len`.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let page = self.pages[position / PAGE].get_or_init(|| self.page(position / PAGE * PAGE));
        page[position % PAGE * self.rotary_dim()..][..self.rotary_dim()]
            .split_at(self.inverse_frequencies.len())
    }

    fn page(&self, start: usize) -> Vec<f32> {
        let positions = start..self.max_len.min(start + PAGE);
        let mut page = Vec::with_capacity(positions.len() * self.rotary_dim());
        for position in positions {
            // The angle is rounded to f32, as in the models' own code; its cosine is exact.
            let angle = |&f: &f32| f64::from(position as f32 * f);
            let factor = self.attention_factor;
            page.extend(self.inverse_frequencies.iter().map(|f| angle(f).cos() as f32 * factor));
            page.extend(self.inverse_frequencies.iter().map(|f| angle(f).sin() as f32 * factor));
        }
        page
    }
}

/// Rotates some heads of each row of `x` `[n, heads * head_dim]` in place, by the `positions` `[n]`
/// u32 of the rows.
///
/// Element `i` of a head turns together with element `i + rotary_dim / 2`; elements from
/// `rotary_dim` on stay as they are.
///
/// # Errors
/// When a position is not below the table's `max_len`, or a head is narrower than its `rotary_dim`.
pub fn rope(
    x: &mut Activations,
    (heads, head_dim): (Range<usize>, usize),
    positions: &Tensor,
    table: &RopeTable,
) -> Result<()> {
    check_dtype("rope", "positions", positions, DType::U32)?;
    check_heads("rope", x, &heads, head_dim)?;
    if positions.dims() != [x.rows()] {
        bail!("rope: positions must be [{}]: {:?}", x.rows(), positions.shape())
    }
    if head_dim < table.rotary_dim() {
        bail!("rope: {} rotated elements do not fit a head of {head_dim}", table.rotary_dim())
    }
    let tensor = &positions.contiguous()?;
    with_u32(tensor, |positions| {
        let max_len = table.max_len;
        if let Some(position) = positions.iter().find(|&&position| position as usize >= max_len) {
            bail!("rope: position {position} is not below {max_len}")
        }
        if let Some(buffer) = x.device() {
            let shape = (x.rows(), x.width());
            return cuda::rope(buffer, shape, (heads, head_dim), tensor, table);
        }
        let (cpu, width) = (Cpu::current(), x.width());
        for_each_row(&cpu, 2, x.values_mut(), width, |token, row| {
            let (cos, sin) = table.at(positions[token] as usize);
            let row = &mut row[heads.start * head_dim..heads.end * head_dim];
            for head in row.chunks_exact_mut(head_dim) {
                cpu.isa.run(Rotate { head, cos, sin });
            }
        });
        Ok(())
    })?
}

struct Rotate<'a> {
    head: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let half = self.cos.len();
        let (first, rest) = self.head.split_at_mut(half);
        let second = &mut rest[..half];
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(self.cos.iter().zip(self.sin))
        {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
