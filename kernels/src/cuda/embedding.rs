//! Rows of a packed table.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use candle_core::{Result, Tensor};

use super::{Buffer, Launch};
use crate::WeightType;
use crate::quant::Family;
use crate::view::with_u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct EmbeddingArgs {
    ids: u64,
    table: u64,
    out: u64,
    cols: u32,
    layout: u32,
    bits: u32,
}

/// See [`crate::ops::embedding`]; ids were checked.
pub(crate) fn embedding(
    ids: &Tensor,
    table: &Buffer,
    kind: WeightType,
    cols: usize,
) -> Result<Buffer> {
    let gpu = table.gpu();
    let (layout, bits) = match (kind, kind.format()) {
        (_, Some(format)) => {
            let layout = match format.family {
                Family::Plain => 2,
                Family::Mins => 3,
                Family::Halves => 4,
            };
            (layout, format.bits as u32)
        }
        (WeightType::Bf16, None) => (1, 16),
        _ => (0, 32),
    };
    let out = gpu.allocate(ids.elem_count() * cols * 4)?;
    let place = with_u32(ids, |values| {
        let key = (values.as_ptr().addr(), values.len(), 0);
        gpu.step_input(ids, key, || Ok(values.to_vec()))
    })??;
    let args = EmbeddingArgs {
        ids: place,
        table: table.place(),
        out: out.place(),
        cols: cols as u32,
        layout,
        bits,
    };
    let grid = [ids.elem_count() as u32, 1, 1];
    // SAFETY: the ids are rows of the table, which has this layout.
    unsafe { gpu.launch(Launch { kernel: "embedding", grid, threads: 256, shared: 0 }, &args)? };
    Ok(out)
}
