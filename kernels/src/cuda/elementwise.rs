//! Norms, rotations, gates and copies of rows.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::{Buffer, Gpu, Launch};
use crate::ops::RopeTable;
use crate::view::{with_f32, with_u32};

const THREADS: u32 = 256;

#[derive(Clone, Copy)]
#[repr(C)]
struct RmsNormArgs {
    x: u64,
    weight: u64,
    out: u64,
    x_stride: u32,
    out_stride: u32,
    heads: u32,
    dim: u32,
    eps: f32,
}

/// See [`crate::ops::rms_norm`].
pub(crate) fn rms_norm(
    x: &Buffer,
    (rows, width): (usize, usize),
    weight: &Tensor,
    eps: f32,
) -> Result<Buffer> {
    let out = x.gpu().allocate(rows * width * 4)?;
    let weight = with_f32(weight, |values| x.gpu().vector(weight, values))??;
    let (stride, heads) = (width as u32, 1);
    let args = RmsNormArgs {
        x: x.place(),
        weight,
        out: out.place(),
        x_stride: stride,
        out_stride: stride,
        heads,
        dim: stride,
        eps,
    };
    norm(x.gpu(), rows, &args)?;
    Ok(out)
}

/// See [`crate::ops::rms_norm_columns`].
pub(crate) fn rms_norm_columns(
    x: &Buffer,
    (rows, width): (usize, usize),
    columns: Range<usize>,
    weight: &Tensor,
    eps: f32,
) -> Result<()> {
    let dim = weight.elem_count();
    let weight = with_f32(weight, |values| x.gpu().vector(weight, values))??;
    let place = x.place() + (columns.start * 4) as u64;
    let args = RmsNormArgs {
        x: place,
        weight,
        out: place,
        x_stride: width as u32,
        out_stride: width as u32,
        heads: (columns.len() / dim) as u32,
        dim: dim as u32,
        eps,
    };
    norm(x.gpu(), rows, &args)
}

fn norm(gpu: &Gpu, rows: usize, args: &RmsNormArgs) -> Result<()> {
    let threads = args.dim.div_ceil(4).next_multiple_of(32).min(THREADS);
    let grid = [rows as u32 * args.heads, 1, 1];
    // SAFETY: rows of the given width, a weight of `dim`, and a block for each head of each row.
    unsafe { gpu.launch(Launch { kernel: "rms_norm", grid, threads, shared: 0 }, args) }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct RopeArgs {
    x: u64,
    angles: u64,
    stride: u32,
    heads: u32,
    dim: u32,
    half: u32,
}

/// See [`crate::ops::rope`]; positions were checked.
pub(crate) fn rope(
    x: &Buffer,
    (rows, width): (usize, usize),
    (heads, dim): (Range<usize>, usize),
    positions: &Tensor,
    table: &RopeTable,
) -> Result<()> {
    let half = table.rotary_dim() / 2;
    let angles = with_u32(positions, |values| {
        let key = (values.as_ptr().addr(), values.len(), table.id());
        x.gpu().step_input(positions, key, || {
            let rows = values.iter().map(|&position| table.at(position as usize));
            Ok(rows.flat_map(|(cos, sin)| cos.iter().chain(sin).copied()).collect::<Vec<f32>>())
        })
    })??;
    let args = RopeArgs {
        x: x.place() + (heads.start * dim * 4) as u64,
        angles,
        stride: width as u32,
        heads: heads.len() as u32,
        dim: dim as u32,
        half: half as u32,
    };
    let launch = Launch { kernel: "rope", grid: [rows as u32, 1, 1], threads: THREADS, shared: 0 };
    // SAFETY: the heads lie in the rows, and there are angles for each row.
    unsafe { x.gpu().launch(launch, &args) }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SiluMulArgs {
    gate_up: u64,
    out: u64,
    rows: u32,
    width: u32,
}

/// See [`crate::ops::silu_mul`]; `width` is that of the result.
pub(crate) fn silu_mul(gate_up: &Buffer, rows: usize, width: usize) -> Result<Buffer> {
    let out = gate_up.gpu().allocate(rows * width * 4)?;
    let args = SiluMulArgs {
        gate_up: gate_up.place(),
        out: out.place(),
        rows: rows as u32,
        width: width as u32,
    };
    let grid = [(rows * width).div_ceil(THREADS as usize) as u32, 1, 1];
    let launch = Launch { kernel: "silu_mul", grid, threads: THREADS, shared: 0 };
    // SAFETY: `gate_up` has rows of twice the width, and `out` of the width.
    unsafe { gate_up.gpu().launch(launch, &args)? };
    Ok(out)
}

#[derive(Clone, Copy)]
#[repr(C)]
struct CopyRowsArgs {
    from: u64,
    indices: u64,
    to: u64,
    from_stride: u32,
    to_stride: u32,
    width: u32,
}

/// Copies rows of `width` to the columns from `col` on of the rows of `to`, which are `stride` wide:
/// all rows in order, or those that `indices` name.
pub(crate) fn copy_rows(
    from: &Buffer,
    (rows, width): (usize, usize),
    indices: Option<&Tensor>,
    to: &Buffer,
    (col, stride): (usize, usize),
) -> Result<()> {
    let indices = match indices {
        None => 0,
        Some(indices) => with_u32(indices, |values| {
            let key = (values.as_ptr().addr(), values.len(), 0);
            from.gpu().step_input(indices, key, || Ok(values.to_vec()))
        })??,
    };
    let args = CopyRowsArgs {
        from: from.place(),
        indices,
        to: to.place() + (col * 4) as u64,
        from_stride: width as u32,
        to_stride: stride as u32,
        width: width as u32,
    };
    let launch =
        Launch { kernel: "copy_rows", grid: [rows as u32, 1, 1], threads: THREADS, shared: 0 };
    // SAFETY: the caller checked indices and shapes.
    unsafe { from.gpu().launch(launch, &args) }
}
