//! Attention that reads keys and values where they lie.
#![expect(unsafe_code, reason = "threads write disjoint heads of one result")]

use std::cell::Cell;

use candle_core::{CpuStorage, Result, bail};
use half::{bf16, f16};

use super::single::{MAX_ROWS, Single};
use super::softmax::Running;
use super::tile::{HeadBlocks, QueryTile};
use super::{AttentionBackend, AttentionParams, AttnMetadata, StepHeads};
use crate::cpu::Cpu;
use crate::kv_cache::KvElement;
use crate::pool::Parts;
use crate::view::{Rows, with_storage};
use crate::{Activations, KvCacheSpec, PagedKvCache};

/// Query rows that share one pass over the keys, about.
const TILE_ROWS: usize = 48;

std::thread_local! {
    /// The items of the last step, to be used again.
    static ITEMS: Cell<Vec<Item>> = const { Cell::new(Vec::new()) };
}

/// Online softmax over tiles of keys, in `f32`, with all query heads of a key/value head together.
///
/// Decoding, prefill in chunks and prefill at once give the same bits: the tiles a query meets and
/// their order depend on its position only.
#[derive(Debug, Default)]
pub struct PagedAttention;

impl AttentionBackend for PagedAttention {
    fn name(&self) -> &'static str {
        "paged"
    }

    fn forward(
        &self,
        (cache, meta): (&PagedKvCache, &AttnMetadata),
        layer: usize,
        qkv: &Activations,
        params: AttentionParams<'_>,
    ) -> Result<Activations> {
        let StepHeads { num_heads, q, k, v } = StepHeads::new((cache, meta), qkv, params)?;
        cache.store(layer, k, v, &meta.slot_mapping)?;
        let attend = Attend { spec: cache.spec(), meta, params, cpu: Cpu::current() };
        let mut out = Activations::uninit(qkv.rows(), num_heads * attend.spec.head_dim);
        let layer = cache.layer(layer)?;
        with_storage(&layer.k, |k, _| {
            with_storage(&layer.v, |v, _| {
                match k {
                    CpuStorage::F32(k) => attend.run(q, num_heads, (k, f32::slice(v)?), &mut out),
                    CpuStorage::BF16(k) => attend.run(q, num_heads, (k, bf16::slice(v)?), &mut out),
                    CpuStorage::F16(k) => attend.run(q, num_heads, (k, f16::slice(v)?), &mut out),
                    _ => bail!("a kv cache holds f32, bf16 or f16"),
                }
                Ok(())
            })
        })?;
        Ok(out)
    }
}

struct Attend<'a> {
    spec: &'a KvCacheSpec,
    meta: &'a AttnMetadata,
    params: AttentionParams<'a>,
    cpu: Cpu,
}

impl Attend<'_> {
    fn run<T: KvElement>(
        &self,
        q: Rows<'_>,
        num_heads: usize,
        (keys, values): (&[T], &[T]),
        out: &mut Activations,
    ) {
        let KvCacheSpec { num_kv_heads, head_dim, block_size, .. } = *self.spec;
        let groups = num_heads / num_kv_heads;
        let mut items = ITEMS.take();
        let work = self.cut((TILE_ROWS / groups).max(1), &mut items);
        let parts = Parts::new(out.values_mut());
        let work = work * num_heads * head_dim * 2;
        self.cpu.pool.for_each_worth(work, items.len() * num_kv_heads, |index| {
            let (item, head) = (&items[index / num_kv_heads], index % num_kv_heads);
            let blocks = self.meta.block_tables[item.seq].as_slice();
            let cache = HeadBlocks {
                keys,
                values,
                blocks,
                head: (head, num_kv_heads),
                block_size,
                head_dim,
            };
            let place =
                |row: usize| (item.token + row / groups) * num_heads + head * groups + row % groups;
            let AttentionParams { scale, soft_cap, sliding_window, sinks } = self.params;
            let window = sliding_window.unwrap_or(usize::MAX);
            let sinks = sinks.map(|sinks| &sinks[head * groups..(head + 1) * groups]);
            if item.num_tokens == 1 && Single::<T>::takes(groups, head_dim, block_size) {
                let first = place(0);
                let mut queries = [&[][..]; MAX_ROWS];
                let queries = &mut queries[..groups];
                (first..).zip(&mut *queries).for_each(|(row, query)| *query = q.row(row));
                let end = item.position + 1;
                let positions = end.saturating_sub(window)..end;
                let isa = self.cpu.isa;
                let single = Single { isa, head: cache, scale, soft_cap, sinks, positions };
                // SAFETY: items differ in their tokens or their heads, so in their rows.
                let out = unsafe { parts.part(first * head_dim..(first + groups) * head_dim) };
                return single.run(queries, out);
            }
            let rows = (0..item.num_tokens * groups).map(|row| q.row(place(row)));
            let start = |row: usize| Running::new(sinks.map(|sinks| sinks[row % groups]));
            let mut tile = QueryTile::new(&self.cpu, head_dim, scale, rows, start);
            tile.soft_cap = soft_cap;
            tile.attend_to(cache, item.position, groups, window);
            for row in 0..item.num_tokens * groups {
                let start = place(row) * head_dim;
                // SAFETY: items differ in their tokens or their heads, so in their rows.
                tile.write(row, unsafe { parts.part(start..start + head_dim) });
            }
        });
        ITEMS.set(items);
    }

    /// Cuts the step into runs of at most `max_tokens` queries; returns the number of scores a head.
    fn cut(&self, max_tokens: usize, items: &mut Vec<Item>) -> usize {
        items.clear();
        let mut work = 0;
        for seq in 0..self.meta.num_seqs() {
            let ((start, len), first) = (self.meta.queries(seq), self.meta.first_position(seq));
            for offset in (0..len).step_by(max_tokens) {
                let num_tokens = max_tokens.min(len - offset);
                let position = first + offset;
                items.push(Item { seq, token: start + offset, position, num_tokens });
                work += num_tokens * (position + num_tokens);
            }
        }
        work
    }
}

/// Neighbouring queries of a sequence.
struct Item {
    seq: usize,
    /// Index of the first in the step.
    token: usize,
    /// Position of the first in the sequence.
    position: usize,
    num_tokens: usize,
}
