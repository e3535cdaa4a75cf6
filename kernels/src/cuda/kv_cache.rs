//! Keys and values on a device.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use candle_core::{DType, Result, bail};

use super::{Buffer, Gpu, Launch};
use crate::KvCacheSpec;

/// All layers: keys and values `[num_blocks, num_kv_heads, block_size, head_dim]`.
#[derive(Debug)]
pub(crate) struct DeviceKv {
    pub(super) layers: Vec<(Buffer, Buffer)>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct StoreKvArgs {
    keys: u64,
    values: u64,
    slots: u64,
    key_cache: u64,
    value_cache: u64,
    stride: u32,
    heads: u32,
    dim: u32,
    block_size: u32,
}

impl DeviceKv {
    /// Zeros for all blocks, so that what was never written is finite.
    pub(crate) fn allocate(gpu: &Gpu, spec: &KvCacheSpec) -> Result<Self> {
        if !matches!(spec.dtype, DType::F32 | DType::BF16) {
            bail!("a kv cache on a gpu holds f32 or bf16: {:?}", spec.dtype)
        }
        let bytes = spec.total_bytes() / spec.num_layers / 2;
        let layer = |_| Ok((gpu.zeros(bytes)?, gpu.zeros(bytes)?));
        Ok(Self { layers: (0..spec.num_layers).map(layer).collect::<Result<_>>()? })
    }

    /// Copies whole blocks of all layers; they were checked.
    pub(crate) fn copy_blocks(&self, spec: &KvCacheSpec, pairs: &[(u32, u32)]) -> Result<()> {
        let bytes = spec.block_bytes() / spec.num_layers / 2;
        for (keys, values) in &self.layers {
            for &(from, to) in pairs {
                let (from, to) = (from as usize * bytes, to as usize * bytes);
                keys.copy_within(from, to, bytes)?;
                values.copy_within(from, to, bytes)?;
            }
        }
        Ok(())
    }

    /// Writes the keys and values of a step, which lie behind the query heads in `qkv`; the slots
    /// were checked.
    pub(super) fn store(
        &self,
        spec: &KvCacheSpec,
        layer: usize,
        qkv: &Buffer,
        (tokens, num_heads): (usize, usize),
        slots: &Buffer,
    ) -> Result<()> {
        let (key_cache, value_cache) = &self.layers[layer];
        let (heads, dim) = (spec.num_kv_heads, spec.head_dim);
        let keys = qkv.place() + (num_heads * dim * 4) as u64;
        let args = StoreKvArgs {
            keys,
            values: keys + (heads * dim * 4) as u64,
            slots: slots.place(),
            key_cache: key_cache.place(),
            value_cache: value_cache.place(),
            stride: ((num_heads + 2 * heads) * dim) as u32,
            heads: heads as u32,
            dim: dim as u32,
            block_size: spec.block_size as u32,
        };
        let kernel = if spec.dtype == DType::F32 { "store_kv_f32" } else { "store_kv_bf16" };
        let grid = [tokens as u32, 1, 1];
        // SAFETY: a slot for each token, inside the cache, and rows of all heads.
        unsafe { qkv.gpu().launch(Launch { kernel, grid, threads: 256, shared: 0 }, &args) }
    }
}
