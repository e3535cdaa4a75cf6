//! Activations times packed weights.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use candle_core::{Result, Tensor};

use super::{Buffer, Gpu, Launch};
use crate::WeightType;
use crate::quant::{BLOCK, Family, Format, TILE_ROWS};
use crate::view::with_f32;

const THREADS: u32 = 256;

/// Rows of activations that one tensor-core product takes.
const TILE_TOKENS: usize = 8;

/// From this many rows on, blocks share activations.
const MIN_TILED: usize = 33;

/// A matrix on the device.
pub(crate) struct DeviceMatrix<'a> {
    pub(crate) kind: WeightType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bytes: &'a Buffer,
}

/// Writes the product of `x` `[n, cols]` with a matrix to `out` `[n, rows]`, or adds it.
pub(crate) fn linear(
    x: &Buffer,
    n: usize,
    weight: &DeviceMatrix<'_>,
    bias: Option<&Tensor>,
    out: &Buffer,
    add: bool,
) -> Result<()> {
    let gpu = x.gpu();
    let bias = match bias {
        None => 0,
        Some(bias) => with_f32(bias, |values| gpu.vector(bias, values))??,
    };
    let end = End { bias, out: out.place(), add: u32::from(add) };
    match (weight.kind, weight.kind.format()) {
        (kind, Some(format)) => quantized(gpu, x, n, weight, (kind, format), end),
        (WeightType::Bf16, None) => bf16(gpu, x, n, weight, end),
        _ => f32(gpu, x, n, weight, end),
    }
}

/// What happens to sums.
#[derive(Clone, Copy)]
struct End {
    bias: u64,
    out: u64,
    add: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinearF32Args {
    x: u64,
    weights: u64,
    bias: u64,
    out: u64,
    n: u32,
    rows: u32,
    cols: u32,
    add: u32,
}

fn f32(gpu: &Gpu, x: &Buffer, n: usize, weight: &DeviceMatrix<'_>, end: End) -> Result<()> {
    let args = LinearF32Args {
        x: x.place(),
        weights: weight.bytes.place(),
        bias: end.bias,
        out: end.out,
        n: n as u32,
        rows: weight.rows as u32,
        cols: weight.cols as u32,
        add: end.add,
    };
    let grid = [weight.rows.div_ceil(64) as u32, n.div_ceil(8) as u32, 1];
    // SAFETY: `x` has n rows, the weights are whole panels, and the result has room.
    unsafe { gpu.launch(Launch { kernel: "linear_f32", grid, threads: THREADS, shared: 0 }, &args) }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct SplitRowsArgs {
    x: u64,
    out: u64,
    n: u32,
    cols: u32,
    steps: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinearBf16Args {
    x: u64,
    weights: u64,
    bias: u64,
    out: u64,
    n: u32,
    rows: u32,
    steps: u32,
    add: u32,
}

fn bf16(gpu: &Gpu, x: &Buffer, n: usize, weight: &DeviceMatrix<'_>, end: End) -> Result<()> {
    let (tiles, steps) = (n.div_ceil(TILE_TOKENS), weight.cols.next_multiple_of(32) / 16);
    let parts = gpu.allocate(tiles * steps * 32 * 16)?;
    let args = SplitRowsArgs {
        x: x.place(),
        out: parts.place(),
        n: n as u32,
        cols: weight.cols as u32,
        steps: steps as u32,
    };
    let grid = [(steps as u32 * 32).div_ceil(THREADS), tiles as u32, 1];
    // SAFETY: `x` has n rows, and `parts` room for all fragments.
    unsafe {
        gpu.launch(Launch { kernel: "split_rows", grid, threads: THREADS, shared: 0 }, &args)?;
    };
    let args = LinearBf16Args {
        x: parts.place(),
        weights: weight.bytes.place(),
        bias: end.bias,
        out: end.out,
        n: n as u32,
        rows: weight.rows as u32,
        steps: steps as u32,
        add: end.add,
    };
    let groups = weight.rows.div_ceil(16) as u32;
    let (kernel, grid) = match n {
        0..=8 => ("linear_bf16_8", [groups, 1, 1]),
        9..=16 => ("linear_bf16_16", [groups, 1, 1]),
        17..MIN_TILED => ("linear_bf16_32", [groups, 1, 1]),
        _ => ("linear_bf16_tiled", [groups.div_ceil(8), tiles.div_ceil(8) as u32, 1]),
    };
    // SAFETY: the weights are whole groups of 16 rows, the parts cover n rows, the result has room.
    unsafe { gpu.launch(Launch { kernel, grid, threads: THREADS, shared: 0 }, &args) }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct QuantizeRowsArgs {
    x: u64,
    codes: u64,
    scales: u64,
    sums: u64,
    cols: u32,
    num_scales: u32,
    grain: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct LinearQuantizedArgs {
    codes: u64,
    scales: u64,
    sums: u64,
    weights: u64,
    bias: u64,
    out: u64,
    n: u32,
    rows: u32,
    cols: u32,
    num_scales: u32,
    add: u32,
}

fn quantized(
    gpu: &Gpu,
    x: &Buffer,
    n: usize,
    weight: &DeviceMatrix<'_>,
    (kind, format): (WeightType, Format),
    end: End,
) -> Result<()> {
    let (cols, num_scales) = (weight.cols, weight.cols.div_ceil(format.grain()));
    let (codes, scales) = (gpu.allocate(n * cols)?, gpu.allocate(n * num_scales * 4)?);
    let sums = match format.family {
        Family::Mins => Some(gpu.allocate(n * cols / BLOCK * 4)?),
        Family::Plain | Family::Halves => None,
    };
    let sums_place = sums.as_ref().map_or(0, Buffer::place);
    let args = QuantizeRowsArgs {
        x: x.place(),
        codes: codes.place(),
        scales: scales.place(),
        sums: sums_place,
        cols: cols as u32,
        num_scales: num_scales as u32,
        grain: format.grain() as u32,
    };
    let launch =
        Launch { kernel: "quantize_rows", grid: [n as u32, 1, 1], threads: THREADS, shared: 0 };
    // SAFETY: a block for each row; codes, scales and sums have room for n rows.
    unsafe { gpu.launch(launch, &args)? };
    let args = LinearQuantizedArgs {
        codes: codes.place(),
        scales: scales.place(),
        sums: sums_place,
        weights: weight.bytes.place(),
        bias: end.bias,
        out: end.out,
        n: n as u32,
        rows: weight.rows as u32,
        cols: cols as u32,
        num_scales: num_scales as u32,
        add: end.add,
    };
    let wide = n > TILE_TOKENS;
    let tokens = if wide { 4 * TILE_TOKENS } else { TILE_TOKENS };
    let kernel = quantized_kernel(kind, wide);
    let grid = [weight.rows.div_ceil(TILE_ROWS) as u32, n.div_ceil(tokens) as u32, 1];
    // SAFETY: the weights are whole tiles of this format, the result has room for n rows.
    unsafe { gpu.launch(Launch { kernel, grid, threads: THREADS, shared: 0 }, &args) }
}

fn quantized_kernel(kind: WeightType, wide: bool) -> &'static str {
    match (kind, wide) {
        (WeightType::Q8_0, false) => "linear_q8_0_8",
        (WeightType::Q8_0, true) => "linear_q8_0_32",
        (WeightType::Q4_0, false) => "linear_q4_0_8",
        (WeightType::Q4_0, true) => "linear_q4_0_32",
        (WeightType::Q5_0, false) => "linear_q5_0_8",
        (WeightType::Q5_0, true) => "linear_q5_0_32",
        (WeightType::Q4K, false) => "linear_q4_k_8",
        (WeightType::Q4K, true) => "linear_q4_k_32",
        (WeightType::Q5K, false) => "linear_q5_k_8",
        (WeightType::Q5K, true) => "linear_q5_k_32",
        (_, false) => "linear_q6_k_8",
        (_, true) => "linear_q6_k_32",
    }
}
