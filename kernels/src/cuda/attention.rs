//! Attention on a device.
#![expect(unsafe_code, reason = "kernels get addresses of buffers")]

use candle_core::{DType, Result, bail};
use parking_lot::Mutex;

use super::memory::Plain;
use super::{Buffer, Gpu, Launch};
use crate::attention::{AttentionBackend, AttentionParams, AttnMetadata, PagedAttention};
use crate::{Activations, KvCacheSpec, PagedKvCache};

/// Keys of a part that is summed on its own.
const PART_KEYS: usize = 256;
/// Keys of a tile in shared memory.
const KEYS: usize = 32;
/// Bytes that results of parts may take.
const MAX_PARTIAL: usize = 256 << 20;

/// Paged attention where the cache is; on the host it is [`PagedAttention`].
///
/// What a step is given once is uploaded once: [`AttentionBackend::plan`] must be called for each
/// step.
#[derive(Debug, Default)]
pub(crate) struct DeviceAttention {
    step: Mutex<Option<Step>>,
}

/// A step on the device.
#[derive(Debug)]
struct Step {
    groups: usize,
    slots: Buffer,
    block_tables: Buffer,
    items: Buffer,
    num_items: usize,
    max_context: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Item {
    first_block: u32,
    token: u32,
    position: u32,
    num_tokens: u32,
}

// SAFETY: four integers.
unsafe impl Plain for Item {}

#[derive(Clone, Copy)]
#[repr(C)]
struct AttentionArgs {
    q: u64,
    keys: u64,
    values: u64,
    block_tables: u64,
    items: u64,
    out: u64,
    partial: u64,
    sinks: u64,
    q_stride: u32,
    heads: u32,
    kv_heads: u32,
    dim: u32,
    block_size: u32,
    window: u32,
    num_parts: u32,
    head_tiles: u32,
    scale: f32,
    soft_cap: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct MergeArgs {
    partial: u64,
    sinks: u64,
    out: u64,
    rows: u32,
    dim: u32,
    num_parts: u32,
    heads: u32,
}

impl AttentionBackend for DeviceAttention {
    fn name(&self) -> &'static str {
        "device"
    }

    fn plan(&self, _meta: &AttnMetadata) -> Result<()> {
        *self.step.lock() = None;
        Ok(())
    }

    fn forward(
        &self,
        (cache, meta): (&PagedKvCache, &AttnMetadata),
        layer: usize,
        qkv: &Activations,
        params: AttentionParams<'_>,
    ) -> Result<Activations> {
        let (Some(kv), Some(buffer)) = (cache.device(), qkv.device()) else {
            return PagedAttention.forward((cache, meta), layer, qkv, params);
        };
        let spec = cache.spec();
        let num_heads = num_heads(spec, qkv.width())?;
        if let Some(sinks) = params.sinks.filter(|sinks| sinks.len() != num_heads) {
            bail!("attention: {num_heads} query heads need as many sinks: {}", sinks.len())
        }
        if kv.layers.len() <= layer {
            bail!("the kv cache has {} layers: {layer}", kv.layers.len())
        }
        let mut step = self.step.lock();
        let groups = num_heads / spec.num_kv_heads;
        if step.as_ref().is_none_or(|step| step.groups != groups) {
            meta.check(spec, qkv.rows())?;
            cache.check_slots(&meta.slot_mapping)?;
            let rows = Kernels::of(spec).rows;
            *step = Some(Step::upload(buffer.gpu(), meta, (groups, rows))?);
        }
        let Some(step) = &*step else { bail!("attention: a step was not planned") };
        kv.store(spec, layer, buffer, (qkv.rows(), num_heads), &step.slots)?;
        let out = step.attend(spec, &kv.layers[layer], buffer, (qkv.rows(), num_heads), params)?;
        Ok(Activations::on_device(out, qkv.rows(), num_heads * spec.head_dim))
    }
}

fn num_heads(spec: &KvCacheSpec, width: usize) -> Result<usize> {
    let (kv, dim) = (spec.num_kv_heads, spec.head_dim);
    let all = width / dim;
    if !width.is_multiple_of(dim) || all <= 2 * kv || !all.is_multiple_of(kv) {
        bail!("attention: rows of {width} are no query heads for {kv} kv heads of {dim}")
    }
    if 256 < dim {
        bail!("attention: a gpu takes heads of at most 256: {dim}")
    }
    Ok(all - 2 * kv)
}

impl Step {
    fn upload(gpu: &Gpu, meta: &AttnMetadata, (groups, rows): (usize, usize)) -> Result<Self> {
        let max_tokens = (rows / groups).max(1);
        let (mut tables, mut items) = (Vec::new(), Vec::new());
        for seq in 0..meta.num_seqs() {
            let ((start, len), first) = (meta.queries(seq), meta.first_position(seq));
            let first_block = tables.len() as u32;
            tables.extend_from_slice(&meta.block_tables[seq]);
            for offset in (0..len).step_by(max_tokens) {
                let num_tokens = max_tokens.min(len - offset) as u32;
                let (token, position) = ((start + offset) as u32, (first + offset) as u32);
                items.push(Item { first_block, token, position, num_tokens });
            }
        }
        Ok(Self {
            groups,
            slots: gpu.upload(&meta.slot_mapping)?,
            block_tables: gpu.upload(&tables)?,
            num_items: items.len(),
            items: gpu.upload(&items)?,
            max_context: meta.context_lens.iter().max().map_or(0, |&len| len as usize),
        })
    }

    fn attend(
        &self,
        spec: &KvCacheSpec,
        (keys, values): &(Buffer, Buffer),
        qkv: &Buffer,
        (tokens, num_heads): (usize, usize),
        params: AttentionParams<'_>,
    ) -> Result<Buffer> {
        let (gpu, dim, kv_heads) = (qkv.gpu(), spec.head_dim, spec.num_kv_heads);
        let kernels = Kernels::of(spec);
        let head_tiles = self.groups.div_ceil(kernels.rows);
        let (num_parts, rows) = (self.max_context.div_ceil(PART_KEYS), tokens * num_heads);
        let num_blocks = self.num_items * kv_heads * head_tiles;
        let partial_len = rows * num_parts * (dim + 2) * 4;
        // Few rows fill the device only when every part of the keys is a block of its own.
        let fills = 2 * gpu.num_processors() as usize <= num_blocks;
        let is_split = 1 < num_parts && !fills && partial_len <= MAX_PARTIAL;
        let partial = is_split.then(|| gpu.allocate(partial_len)).transpose()?;
        let sinks_buffer = params.sinks.map(|sinks| gpu.upload(sinks)).transpose()?;
        let sinks = sinks_buffer.as_ref().map_or(0, Buffer::place);
        let out = gpu.allocate(rows * dim * 4)?;
        let args = AttentionArgs {
            q: qkv.place(),
            keys: keys.place(),
            values: values.place(),
            block_tables: self.block_tables.place(),
            items: self.items.place(),
            out: out.place(),
            partial: partial.as_ref().map_or(0, Buffer::place),
            sinks,
            q_stride: ((num_heads + 2 * kv_heads) * dim) as u32,
            heads: num_heads as u32,
            kv_heads: kv_heads as u32,
            dim: dim as u32,
            block_size: spec.block_size as u32,
            window: params.sliding_window.map_or(u32::MAX, |window| window as u32),
            num_parts: num_parts as u32,
            head_tiles: head_tiles as u32,
            scale: params.scale,
            soft_cap: params.soft_cap.unwrap_or(0.0),
        };
        let blocks_z = if is_split { num_parts as u32 } else { 1 };
        let grid = [self.num_items as u32, (kv_heads * head_tiles) as u32, blocks_z];
        let (kernel, shared) = (kernels.attention, kernels.shared as u32);
        // SAFETY: metadata and heads were checked; results and parts have room for all rows.
        unsafe { gpu.launch(Launch { kernel, grid, threads: 128, shared }, &args)? };
        if let Some(partial) = &partial {
            let args = MergeArgs {
                partial: partial.place(),
                sinks,
                out: out.place(),
                rows: rows as u32,
                dim: dim as u32,
                num_parts: num_parts as u32,
                heads: num_heads as u32,
            };
            let grid = [rows.div_ceil(4) as u32, 1, 1];
            // SAFETY: every row has all its parts, written above.
            unsafe {
                gpu.launch(Launch { kernel: kernels.merge, grid, threads: 128, shared: 0 }, &args)?;
            };
        }
        Ok(out)
    }
}

/// The kernels for heads of one width and a type of cache. The same for every step of a cache.
struct Kernels {
    attention: &'static str,
    merge: &'static str,
    /// Rows of queries that a block takes.
    rows: usize,
    /// Bytes of shared memory.
    shared: usize,
}

impl Kernels {
    fn of(spec: &KvCacheSpec) -> Self {
        let (dim, is_f32) = (spec.head_dim, spec.dtype == DType::F32);
        let merge = ["merge_parts_64", "merge_parts_128", "merge_parts_256"];
        let (index, width) = match dim {
            0..=64 => (0, 64),
            65..=128 => (1, 128),
            _ => (2, 256),
        };
        let merge = merge[index];
        // Tensor cores read keys and values by eight.
        if !is_f32 && index < 2 && dim.is_multiple_of(8) {
            let attention = ["attention_mma_64", "attention_mma_128"][index];
            let words = 4 * width / 16 * 64 * 4 + KEYS * (width / 2 + 4) + width * (KEYS / 2 + 4);
            return Self { attention, merge, rows: 64, shared: words * 4 };
        }
        let attention = match (index, is_f32) {
            (0, true) => "attention_f32_64",
            (0, false) => "attention_bf16_64",
            (1, true) => "attention_f32_128",
            (1, false) => "attention_bf16_128",
            (_, true) => "attention_f32_256",
            (_, false) => "attention_bf16_256",
        };
        let words = 16 * width + KEYS * (width + 1) + KEYS * width;
        Self { attention, merge, rows: 16, shared: words * 4 }
    }
}
