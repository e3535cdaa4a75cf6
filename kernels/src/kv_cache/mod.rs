//! Physical storage of keys and values, in blocks.

mod element;
mod store;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

pub(crate) use element::KvElement;
use store::{CopyBlocks, Store};

use crate::Device as Place;
use crate::cuda::DeviceKv;
use crate::view::Rows;

/// Shape of a cache; fully decides its size in bytes.
#[derive(Clone, Debug)]
pub struct KvCacheSpec {
    /// Transformer layers that attend.
    pub num_layers: usize,
    /// Key/value heads per layer.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Blocks in the pool, block 0 (the null block) included.
    pub num_blocks: usize,
    /// Element type: `F32`, `BF16` or `F16`.
    pub dtype: DType,
}

impl KvCacheSpec {
    /// Bytes of one block over all layers, K and V together.
    pub fn block_bytes(&self) -> usize {
        let per_token = self.num_kv_heads * self.head_dim * self.dtype.size_in_bytes();
        2 * self.num_layers * self.block_size * per_token
    }

    /// Bytes of the whole cache.
    pub fn total_bytes(&self) -> usize {
        self.num_blocks * self.block_bytes()
    }

    /// The same cache with as many blocks as fit into `bytes`, whatever `num_blocks` was.
    ///
    /// # Errors
    /// When not even the null block and one more fit.
    pub fn for_memory(self, bytes: usize) -> Result<Self> {
        self.check()?;
        let num_blocks = bytes / self.block_bytes();
        if num_blocks < 2 {
            bail!(
                "the kv cache needs at least {} bytes for two blocks of {} tokens: {bytes}",
                2 * self.block_bytes(),
                self.block_size
            )
        }
        // Slots are numbered in 32 bits.
        let num_blocks = num_blocks.min(u32::MAX as usize / self.block_size);
        Ok(Self { num_blocks, ..self })
    }

    fn check(&self) -> Result<()> {
        if self.block_bytes() == 0 {
            bail!("a kv cache needs layers, heads, a head width and a block size: {self:?}")
        }
        if !matches!(self.dtype, DType::F32 | DType::BF16 | DType::F16) {
            bail!("a kv cache holds f32, bf16 or f16: {:?}", self.dtype)
        }
        Ok(())
    }
}

/// K and V of one layer.
#[derive(Debug)]
pub(crate) struct KvLayer {
    /// `[num_blocks, num_kv_heads, head_dim, block_size]`: scores of neighbouring keys are computed
    /// side by side.
    pub(crate) k: Tensor,
    /// `[num_blocks, num_kv_heads, block_size, head_dim]`.
    pub(crate) v: Tensor,
}

/// All layers. Holds memory only: who owns which block is the scheduler's business.
#[derive(Debug)]
pub struct PagedKvCache {
    layers: Vec<KvLayer>,
    device: Option<DeviceKv>,
    spec: KvCacheSpec,
}

/// Zeros that take memory where they are first written: the system hands out zeroed pages, and
/// integers are not written over them, as 16-bit floats would be.
fn zeros(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    let bits = |device: &Device| device.is_cpu().then(|| vec![0_u16; shape.elem_count()]);
    match dtype {
        DType::BF16 if let Some(bits) = bits(device) => {
            Tensor::from_vec(bits.reinterpret_into::<bf16>(), shape, device)
        }
        DType::F16 if let Some(bits) = bits(device) => {
            Tensor::from_vec(bits.reinterpret_into::<f16>(), shape, device)
        }
        _ => Tensor::zeros(shape, dtype, device),
    }
}

impl PagedKvCache {
    /// Allocates the whole pool once; nothing grows afterwards.
    pub fn allocate(spec: &KvCacheSpec, device: &Device) -> Result<Self> {
        spec.check()?;
        let KvCacheSpec { num_blocks, num_kv_heads, head_dim, block_size, dtype, .. } = *spec;
        let layers = (0..spec.num_layers)
            .map(|_| {
                let keys = (num_blocks, num_kv_heads, head_dim, block_size);
                let values = (num_blocks, num_kv_heads, block_size, head_dim);
                Ok(KvLayer { k: zeros(keys, dtype, device)?, v: zeros(values, dtype, device)? })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, device: None, spec: spec.clone() })
    }

    /// Allocates the whole pool where a model's weights are.
    ///
    /// # Errors
    /// When a GPU has no memory for it, or does not hold elements of this type.
    pub fn allocate_on(spec: &KvCacheSpec, device: &Place) -> Result<Self> {
        match device {
            Place::Cpu => Self::allocate(spec, &Device::Cpu),
            Place::Gpu(gpu) => {
                spec.check()?;
                let device = Some(DeviceKv::allocate(gpu, spec)?);
                Ok(Self { layers: Vec::new(), device, spec: spec.clone() })
            }
        }
    }

    /// What is on a device.
    pub(crate) fn device(&self) -> Option<&DeviceKv> {
        self.device.as_ref()
    }

    /// Refuses slots that do not exist.
    pub(crate) fn check_slots(&self, slots: &[u32]) -> Result<()> {
        let num_slots = self.spec.num_blocks * self.spec.block_size;
        match slots.iter().find(|&&slot| slot as usize >= num_slots) {
            Some(slot) => bail!("the kv cache has {num_slots} slots: {slot}"),
            None => Ok(()),
        }
    }

    /// What was allocated.
    pub fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.spec.block_size
    }

    /// Copies whole blocks, all layers, `(from, to)` in order.
    ///
    /// # Errors
    /// When a block does not exist.
    pub fn copy_blocks(&self, pairs: &[(u32, u32)]) -> Result<()> {
        let num_blocks = self.spec.num_blocks;
        let missing = |&block: &u32| block as usize >= num_blocks;
        if let Some(block) = pairs.iter().flat_map(|(from, to)| [from, to]).find(|b| missing(b)) {
            bail!("the kv cache has {num_blocks} blocks: {block}")
        }
        if let Some(device) = &self.device {
            return device.copy_blocks(&self.spec, pairs);
        }
        let op = CopyBlocks { pairs };
        self.layers.iter().try_for_each(|layer| {
            layer.k.inplace_op1(&op)?;
            layer.v.inplace_op1(&op)
        })
    }

    /// One layer.
    pub(crate) fn layer(&self, index: usize) -> Result<&KvLayer> {
        self.layers.get(index).ok_or_else(|| {
            let num_layers = self.layers.len();
            candle_core::Error::Msg(format!("the kv cache has {num_layers} layers: {index}"))
        })
    }

    /// Writes `k` and `v`, `num_kv_heads` rows of `head_dim` a token, to the slots of the tokens.
    ///
    /// Values are rounded to the type of the cache.
    pub(crate) fn store(
        &self,
        layer: usize,
        k: Rows<'_>,
        v: Rows<'_>,
        slots: &[u32],
    ) -> Result<()> {
        let KvCacheSpec { num_kv_heads, head_dim, .. } = self.spec;
        let expected = (slots.len() * num_kv_heads, head_dim);
        for (name, rows) in [("k", k), ("v", v)] {
            let found = (rows.len(), rows.width());
            if found != expected {
                bail!("kv cache: {name} must be {expected:?}: {found:?}")
            }
        }
        self.check_slots(slots)?;
        let layer = self.layer(layer)?;
        layer.k.inplace_op1(&Store::keys(&self.spec, slots, k))?;
        layer.v.inplace_op1(&Store::values(&self.spec, slots, v))
    }
}
