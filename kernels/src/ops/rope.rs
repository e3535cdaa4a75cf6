//! Rotary position embedding, in the half-rotation form of Hugging Face checkpoints.
#![expect(clippy::inline_always, reason = "inlined into code compiled for an instruction set")]

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::{check_dtype, for_each_row};
use crate::cpu::{Cpu, Kernel};
use crate::view::{Rows, dense_rows, u32_slice};

/// Positions whose angles are computed together, at the first use of one of them.
const PAGE: usize = 256;

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
        Self { inverse_frequencies, attention_factor, max_len, pages }
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
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
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

/// Rotates `x` `[n, heads, d]` f32 by the `positions` `[n]` u32 of its tokens.
///
/// Element `i` turns together with element `i + rotary_dim / 2`; elements from `rotary_dim` on
/// stay as they are. The result is contiguous.
///
/// # Errors
/// When a position is not below the table's `max_len`, or `d` is smaller than its `rotary_dim`.
pub fn rope(x: &Tensor, positions: &Tensor, table: &RopeTable) -> Result<Tensor> {
    check_dtype("rope", "x", x, DType::F32)?;
    check_dtype("rope", "positions", positions, DType::U32)?;
    let (num_tokens, _, head_dim) = x.dims3()?;
    if positions.dims() != [num_tokens] {
        bail!("rope: positions must be [{num_tokens}]: {:?}", positions.shape())
    }
    if head_dim < table.rotary_dim() {
        bail!("rope: {} rotated elements do not fit a head of {head_dim}", table.rotary_dim())
    }
    let op = Rope { table, cpu: Cpu::current() };
    dense_rows(x)?.apply_op2_no_bwd(&positions.contiguous()?, &op)
}

struct Rope<'a> {
    table: &'a RopeTable,
    cpu: Cpu,
}

impl CustomOp2 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, positions) = (Rows::new(x, layout)?, u32_slice(positions, positions_layout)?);
        let (_, heads, head_dim) = layout.shape().dims3()?;
        let max_len = self.table.max_len;
        if let Some(position) = positions.iter().find(|&&position| position as usize >= max_len) {
            bail!("rope: position {position} is not below {max_len}")
        }
        let mut out = vec![0f32; layout.shape().elem_count()];
        for_each_row(&self.cpu, 2, &mut out, heads * head_dim, |token, out| {
            let (cos, sin) = self.table.at(positions[token] as usize);
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                self.cpu.isa.run(Rotate { x: x.row(token * heads + head), cos, sin, out });
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct Rotate<'a> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let half = self.cos.len();
        let (rotated, rest) = self.x.split_at(2 * half);
        let (first, second) = rotated.split_at(half);
        let (out, out_rest) = self.out.split_at_mut(2 * half);
        let (out_first, out_second) = out.split_at_mut(half);
        for ((out, (a, b)), (cos, sin)) in
            out_first.iter_mut().zip(first.iter().zip(second)).zip(self.cos.iter().zip(self.sin))
        {
            *out = a * cos - b * sin;
        }
        for ((out, (a, b)), (cos, sin)) in
            out_second.iter_mut().zip(first.iter().zip(second)).zip(self.cos.iter().zip(self.sin))
        {
            *out = b * cos + a * sin;
        }
        out_rest.copy_from_slice(rest);
    }
}
