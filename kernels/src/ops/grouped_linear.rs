//! Several linear layers at once: experts for runs of rows, heads for runs of columns.

use candle_core::{Result, Tensor, bail};

use super::linear::linear_rows;
use crate::view::Rows;
use crate::{Activations, PackedTensor};

/// One matrix of many with the same shape.
#[derive(Clone, Debug)]
pub struct GroupWeight {
    /// `[out, in]`.
    pub weight: PackedTensor,
    /// `[out]` f32.
    pub bias: Option<Tensor>,
}

/// Multiplies each run of rows of `x` `[n, in]` with its own matrix `[out, in]`: `[n, out]`.
///
/// Run `g` ends before row `ends[g]`, where run `g + 1` begins. Rows are computed as by
/// [`linear`](super::linear): neither neighbours nor the other runs change a bit.
///
/// # Errors
/// When there are not as many matrices as runs, the runs do not cover the rows, or shapes differ.
pub fn grouped_linear(
    x: &Activations,
    ends: &[usize],
    groups: &[GroupWeight],
) -> Result<Activations> {
    let out_dim = groups.first().map_or(0, |group| group.weight.rows());
    if ends.len() != groups.len() || ends.last() != Some(&x.rows()) || !ends.is_sorted() {
        bail!("grouped_linear: {} matrices for {} runs of rows", groups.len(), ends.len())
    }
    let mut out = Activations::uninit(x.rows(), out_dim);
    let (values, width) = (x.values(), x.width());
    let mut start = 0;
    for (group, &end) in groups.iter().zip(ends) {
        if group.weight.rows() != out_dim {
            bail!("grouped_linear: matrices have {out_dim} and {} rows", group.weight.rows())
        }
        if start < end {
            let rows = Rows::dense(&values[start * width..end * width], width);
            let out = &mut out.values_mut()[start * out_dim..end * out_dim];
            linear_rows(rows, &group.weight, group.bias.as_ref(), out)?;
        }
        start = end;
    }
    Ok(out)
}

/// Multiplies columns of `x` with a matrix `[out, in]` of their own: `[n, heads * out]`.
///
/// Head `h` reads the `in` columns from `first + h * stride` on.
///
/// # Errors
/// When `x` lacks the columns, or shapes differ.
pub fn linear_heads(
    x: &Activations,
    (first, stride): (usize, usize),
    heads: &[PackedTensor],
) -> Result<Activations> {
    let (out_dim, in_dim) = heads.first().map_or((0, 0), |head| (head.rows(), head.cols()));
    let needed = first + heads.len().saturating_sub(1) * stride + in_dim;
    if x.width() < needed || heads.iter().any(|h| (h.rows(), h.cols()) != (out_dim, in_dim)) {
        bail!("linear_heads: rows of {} for {} heads of {in_dim}", x.width(), heads.len())
    }
    let width = heads.len() * out_dim;
    let mut out = Activations::uninit(x.rows(), width);
    let mut part = Activations::uninit(x.rows(), out_dim);
    for (head, weight) in heads.iter().enumerate() {
        let rows = Rows::columns(x.values(), x.width(), first + head * stride, in_dim);
        linear_rows(rows, weight, None, part.values_mut())?;
        let rows = out.values_mut().chunks_exact_mut(width.max(1));
        for (out, part) in rows.zip(part.values().chunks_exact(out_dim.max(1))) {
            out[head * out_dim..(head + 1) * out_dim].copy_from_slice(part);
        }
    }
    Ok(out)
}
