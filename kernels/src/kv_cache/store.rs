//! Writes to the cache, in place.
#![expect(unsafe_code, reason = "threads write the disjoint heads of one cache")]

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, bail};

use super::{KvCacheSpec, KvElement};
use crate::cpu::Cpu;
use crate::pool::Parts;
use crate::view::Rows;

/// Writes the rows of the tokens of a step to their slots.
pub(super) struct Store<'a> {
    spec: &'a KvCacheSpec,
    slots: &'a [u32],
    rows: Rows<'a>,
    // Distance of two elements of a head, and of two slots.
    strides: (usize, usize),
    cpu: Cpu,
}

impl<'a> Store<'a> {
    pub(super) fn keys(spec: &'a KvCacheSpec, slots: &'a [u32], rows: Rows<'a>) -> Self {
        Self { spec, slots, rows, strides: (spec.block_size, 1), cpu: Cpu::current() }
    }

    pub(super) fn values(spec: &'a KvCacheSpec, slots: &'a [u32], rows: Rows<'a>) -> Self {
        Self { spec, slots, rows, strides: (1, spec.head_dim), cpu: Cpu::current() }
    }

    fn run<T: KvElement>(&self, cache: &mut [T]) {
        let rows = self.rows;
        let KvCacheSpec { num_kv_heads, head_dim, block_size, .. } = *self.spec;
        let tile = block_size * head_dim;
        let cache = Parts::new(cache);
        let work = 4 * rows.len() * head_dim;
        self.cpu.pool.for_each_worth(work, num_kv_heads, |head| {
            for (token, &slot) in self.slots.iter().enumerate() {
                let (block, offset) = (slot as usize / block_size, slot as usize % block_size);
                let start = (block * num_kv_heads + head) * tile;
                // SAFETY: a head of a block is written by the call for this head only.
                let tile = unsafe { cache.part(start..start + tile) };
                let places = tile[offset * self.strides.1..].iter_mut().step_by(self.strides.0);
                for (place, &value) in places.zip(rows.row(token * num_kv_heads + head)) {
                    *place = T::narrow(value);
                }
            }
        });
    }
}

impl InplaceOp1 for Store<'_> {
    fn name(&self) -> &'static str {
        "store_kv"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, _: &Layout) -> Result<()> {
        match cache {
            CpuStorage::F32(cache) => self.run(cache),
            CpuStorage::BF16(cache) => self.run(cache),
            CpuStorage::F16(cache) => self.run(cache),
            _ => bail!("a kv cache holds f32, bf16 or f16"),
        }
        Ok(())
    }
}

/// Copies whole blocks of `[num_blocks, ..]`; the blocks were checked.
pub(super) struct CopyBlocks<'a> {
    pub(super) pairs: &'a [(u32, u32)],
}

impl InplaceOp1 for CopyBlocks<'_> {
    fn name(&self) -> &'static str {
        "copy_blocks"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let len = layout.shape().elem_count() / layout.dims()[0].max(1);
        match cache {
            CpuStorage::F32(cache) => self.run(cache, len),
            CpuStorage::BF16(cache) => self.run(cache, len),
            CpuStorage::F16(cache) => self.run(cache, len),
            _ => bail!("a kv cache holds f32, bf16 or f16"),
        }
        Ok(())
    }
}

impl CopyBlocks<'_> {
    fn run<T: Copy>(&self, cache: &mut [T], len: usize) {
        for &(from, to) in self.pairs {
            let from = from as usize * len;
            cache.copy_within(from..from + len, to as usize * len);
        }
    }
}
