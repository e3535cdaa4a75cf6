//! Paged attention against the reference, and against itself however a prompt is cut.

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::KvCacheSpec;
use crate::cpu::Cpu;

const CPU: &Device = &Device::Cpu;

fn values(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let next = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    });
    Tensor::from_vec(next.take(shape.iter().product()).collect::<Vec<_>>(), shape, CPU).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// What a fused projection gives for `[num_tokens, heads, head_dim]` each.
fn fused(q: &Tensor, k: &Tensor, v: &Tensor) -> Activations {
    let qkv = Tensor::cat(&[q, k, v], 1).unwrap().flatten_from(1).unwrap();
    Activations::from_tensor(&qkv).unwrap()
}

/// Sequences with all their queries, keys and values, of which steps take parts.
#[derive(Clone, Debug)]
struct World {
    groups: usize,
    num_kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    dtype: DType,
    window: Option<usize>,
    soft_cap: Option<f32>,
    sinks: bool,
    lens: Vec<usize>,
}

impl World {
    fn num_heads(&self) -> usize {
        self.groups * self.num_kv_heads
    }

    fn cache(&self) -> PagedKvCache {
        let spec = KvCacheSpec {
            num_layers: 1,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            block_size: self.block_size,
            num_blocks: 1 + self
                .lens
                .iter()
                .map(|len| len.div_ceil(self.block_size))
                .sum::<usize>(),
            dtype: self.dtype,
        };
        let cache = PagedKvCache::allocate(&spec, CPU).unwrap();
        // What former owners left behind must not matter.
        for tensor in [&cache.layer(0).unwrap().k, &cache.layer(0).unwrap().v] {
            let stale = tensor.ones_like().unwrap().affine(f64::NAN, 0.0).unwrap();
            tensor.slice_set(&stale, 0, 0).unwrap();
        }
        cache
    }

    /// Blocks of all sequences, dealt out from the end and interleaved.
    fn block_tables(&self) -> Vec<Vec<u32>> {
        let needed: Vec<_> = self.lens.iter().map(|len| len.div_ceil(self.block_size)).collect();
        let mut tables = vec![Vec::new(); needed.len()];
        let mut next = needed.iter().sum::<usize>() as u32;
        while next > 0 {
            for (table, &needed) in tables.iter_mut().zip(&needed) {
                if table.len() < needed {
                    table.push(next);
                    next -= 1;
                }
            }
        }
        tables
    }

    /// One step with queries `from..to` of each given sequence.
    fn step(
        &self,
        backend: &dyn AttentionBackend,
        cache: &PagedKvCache,
        parts: &[(usize, usize, usize)],
    ) -> Vec<Tensor> {
        let tables = self.block_tables();
        let mut meta = AttnMetadata { cu_seqlens_q: vec![0], ..AttnMetadata::default() };
        let (mut q, mut k, mut v) = (vec![], vec![], vec![]);
        for &(seq, from, to) in parts {
            let of = |kind: u64, heads: usize| {
                let all = values(seq as u64 * 3 + kind, &[self.lens[seq], heads, self.head_dim]);
                all.narrow(0, from, to - from).unwrap()
            };
            q.push((of(0, self.num_heads()) * 3.0).unwrap());
            k.push(of(1, self.num_kv_heads));
            v.push(of(2, self.num_kv_heads));
            let last = meta.cu_seqlens_q[meta.cu_seqlens_q.len() - 1];
            meta.cu_seqlens_q.push(last + (to - from) as u32);
            meta.context_lens.push(to as u32);
            meta.block_tables.push(tables[seq].clone());
            let (size, table) = (self.block_size, &tables[seq]);
            let slot = |p: usize| table[p / size] * size as u32 + (p % size) as u32;
            meta.slot_mapping.extend((from..to).map(slot));
        }
        let [q, k, v] = [q, k, v].map(|parts| Tensor::cat(&parts, 0).unwrap());
        let qkv = fused(&q, &k, &v);
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let sinks: Vec<f32> = (0..self.num_heads()).map(|head| head as f32 * 0.7 - 1.0).collect();
        let params = AttentionParams {
            scale,
            sliding_window: self.window,
            soft_cap: self.soft_cap,
            sinks: self.sinks.then_some(sinks.as_slice()),
        };
        let out = backend.forward((cache, &meta), 0, &qkv, params).unwrap();
        let out = out.into_tensor().unwrap();
        let lens = parts.iter().map(|(_, from, to)| to - from);
        let starts = meta.cu_seqlens_q.iter().zip(lens);
        starts.map(|(&start, len)| out.narrow(0, start as usize, len).unwrap()).collect()
    }

    /// All sequences at once.
    fn whole(&self, backend: &dyn AttentionBackend) -> Vec<Tensor> {
        let parts: Vec<_> = self.lens.iter().enumerate().map(|(seq, &len)| (seq, 0, len)).collect();
        self.step(backend, &self.cache(), &parts)
    }

    /// One sequence alone, `chunk` tokens a step.
    fn chunked(&self, backend: &dyn AttentionBackend, seq: usize, chunk: usize) -> Tensor {
        let (cache, len) = (self.cache(), self.lens[seq]);
        let steps: Vec<_> = (0..len)
            .step_by(chunk)
            .flat_map(|from| self.step(backend, &cache, &[(seq, from, len.min(from + chunk))]))
            .collect();
        Tensor::cat(&steps, 0).unwrap()
    }

    #[track_caller]
    fn check_against_reference(&self) {
        let (found, expected) = (self.whole(&PagedAttention), self.whole(&ReferenceAttention));
        for (found, expected) in found.iter().zip(&expected) {
            let gap = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
            let gap = gap.to_scalar::<f32>().unwrap();
            assert!(gap < 1e-5, "{self:?} differs by {gap}");
        }
    }

    #[track_caller]
    fn check_invariance(&self) {
        for (seq, whole) in self.whole(&PagedAttention).iter().enumerate() {
            for chunk in [1, 7, 32, 33] {
                let chunked = self.chunked(&PagedAttention, seq, chunk);
                assert!(bits(&chunked) == bits(whole), "{self:?}: chunks of {chunk} differ");
            }
        }
    }
}

const SMALL: World = World {
    groups: 2,
    num_kv_heads: 2,
    head_dim: 16,
    block_size: 16,
    dtype: DType::F32,
    window: None,
    soft_cap: None,
    sinks: false,
    lens: Vec::new(),
};

#[test]
fn head_widths_and_groups_of_real_models_match_the_reference() {
    for head_dim in [8, 32, 64, 80, 96, 128, 256] {
        for (groups, num_kv_heads) in [(1, 2), (3, 1), (4, 2), (7, 1), (64, 1)] {
            for dtype in [DType::F32, DType::BF16] {
                let lens = vec![1, 70, 33];
                World { groups, num_kv_heads, head_dim, dtype, lens, ..SMALL }
                    .check_against_reference();
            }
        }
    }
}

#[test]
fn steps_of_any_size_give_the_same_bits_on_every_path() {
    for cpu in Cpu::all() {
        cpu.scope(|| {
            for (window, dtype) in [(None, DType::F32), (Some(20), DType::BF16)] {
                for (soft_cap, sinks) in [(None, false), (Some(1.5), false), (Some(0.7), true)] {
                    let lens = vec![90, 5, 64];
                    let world = World { dtype, window, soft_cap, sinks, lens, ..SMALL };
                    world.check_invariance();
                    world.check_against_reference();
                }
            }
        });
    }
}

#[test]
fn a_token_alone_gives_the_bits_it_gives_in_its_prompt() {
    for cpu in Cpu::all() {
        cpu.scope(|| {
            for groups in 1..=9 {
                let (window, dtype, block_size) = match groups % 3 {
                    0 => (None, DType::F32, 16),
                    1 => (Some(37), DType::BF16, 48),
                    _ => (Some(16), DType::F16, 32),
                };
                let (head_dim, lens) = (32 * (1 + groups % 2), vec![71]);
                let (soft_cap, sinks) = ((groups % 2 == 0).then_some(0.9), groups % 4 < 2);
                let shape = World { groups, head_dim, block_size, lens, ..SMALL };
                let world = World { dtype, window, soft_cap, sinks, ..shape };
                let whole = &world.whole(&PagedAttention)[0];
                assert!(bits(&world.chunked(&PagedAttention, 0, 1)) == bits(whole), "{world:?}");
            }
        });
    }
}

#[test]
fn large_steps_are_shared_by_threads_without_a_trace() {
    let world = World { num_kv_heads: 3, head_dim: 64, lens: vec![150, 40], ..SMALL };
    for cpu in Cpu::all().chunks(2) {
        let run = |cpu: &Cpu| cpu.scope(|| world.whole(&PagedAttention)).iter().map(bits).collect();
        let [one, many]: [Vec<_>; 2] = [run(&cpu[0]), run(&cpu[1])];
        assert!(one == many, "{:?}", cpu[0].isa);
    }
}

#[test]
fn sequences_of_a_batch_do_not_see_each_other() {
    let world = World { window: Some(30), lens: vec![40, 17, 65, 3], ..SMALL };
    for (seq, whole) in world.whole(&PagedAttention).iter().enumerate() {
        let alone = world.step(&PagedAttention, &world.cache(), &[(seq, 0, world.lens[seq])]);
        assert!(bits(&alone[0]) == bits(whole), "sequence {seq}");
    }
}

#[test]
fn block_sizes_do_not_change_a_bit() {
    let world = World { lens: vec![75], ..SMALL };
    let expected = bits(&world.whole(&PagedAttention)[0]);
    for block_size in [1, 3, 8, 32, 48, 128] {
        let found = World { block_size, ..world.clone() }.whole(&PagedAttention);
        assert!(bits(&found[0]) == expected, "blocks of {block_size}");
    }
}

#[test]
fn half_precision_caches_match_the_reference() {
    World { dtype: DType::F16, lens: vec![50, 9], ..SMALL }.check_against_reference();
}

#[test]
fn not_a_number_reaches_the_output() {
    let world = World { lens: vec![4], ..SMALL };
    let spec = world.cache();
    let q = values(1, &[4, 4, 16]);
    let k = (values(2, &[4, 2, 16]) * f64::NAN).unwrap();
    let meta = AttnMetadata {
        cu_seqlens_q: vec![0, 4],
        context_lens: vec![4],
        block_tables: vec![vec![1]],
        slot_mapping: vec![16, 17, 18, 19],
    };
    let params = AttentionParams::new(0.25);
    let qkv = fused(&q, &k, &values(3, &[4, 2, 16]));
    let out = PagedAttention.forward((&spec, &meta), 0, &qkv, params).unwrap();
    assert!(out.values().iter().all(|x| x.is_nan()));
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let world = World { lens: vec![20], ..SMALL };
    let cache = world.cache();
    let good = AttnMetadata {
        cu_seqlens_q: vec![0, 2],
        context_lens: vec![20],
        block_tables: vec![vec![2, 1]],
        slot_mapping: vec![18, 19],
    };
    let run = |meta: &AttnMetadata, qkv: &[usize]| {
        let qkv = Activations::from_tensor(&values(1, qkv)).unwrap();
        let params = AttentionParams::new(1.0);
        // Only the message: where backtraces are on, candle appends one.
        let message = |e: candle_core::Error| e.to_string().lines().next().unwrap().to_owned();
        let run = |backend: &dyn AttentionBackend| {
            let out = backend.forward((&cache, meta), 0, &qkv, params);
            out.map(drop).map_err(message)
        };
        assert_eq!(run(&PagedAttention), run(&ReferenceAttention));
        run(&PagedAttention)
    };
    assert_eq!(run(&good, &[2, 8 * 16]), Ok(()));
    let with = |change: &dyn Fn(&mut AttnMetadata)| {
        let mut meta = good.clone();
        change(&mut meta);
        run(&meta, &[2, 8 * 16]).unwrap_err()
    };
    assert!(with(&|m| m.context_lens = vec![33]).contains("a context of 33"));
    assert!(with(&|m| m.context_lens = vec![1]).contains("has 2 queries"));
    assert!(with(&|m| m.block_tables = vec![vec![2, 3]]).contains("3 blocks: 3"));
    assert!(with(&|m| m.slot_mapping = vec![18]).contains("does not describe 2 tokens"));
    assert!(with(&|m| m.slot_mapping = vec![18, 48]).contains("48 slots: 48"));
    assert!(with(&|m| m.cu_seqlens_q = vec![0, 3]).contains("does not describe 2 tokens"));
    let sinks = AttentionParams { sinks: Some(&[0.5; 3]), ..AttentionParams::new(1.0) };
    let qkv = Activations::from_tensor(&values(1, &[2, 8 * 16])).unwrap();
    let error = PagedAttention.forward((&cache, &good), 0, &qkv, sinks).unwrap_err().to_string();
    assert!(error.contains("4 query heads need as many sinks: 3"), "{error}");
    for width in [7 * 16, 4 * 16, 8 * 16 - 1] {
        let error = run(&good, &[2, width]).unwrap_err();
        let expected = format!("rows of {width} are no query heads for 2 kv heads of 16");
        assert!(error.contains(&expected), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_shape_matches_the_reference_and_itself(
        groups in 1usize..5,
        num_kv_heads in 1usize..4,
        head_dim in 1usize..70,
        block_size in 1usize..40,
        window in proptest::option::of(1usize..60),
        soft_cap in proptest::option::of(0.5f32..4.0),
        (bf16, sinks) in any::<(bool, bool)>(),
        lens in proptest::collection::vec(1usize..80, 1..4),
    ) {
        let dtype = if bf16 { DType::BF16 } else { DType::F32 };
        let shape = World { groups, num_kv_heads, head_dim, block_size, lens, ..SMALL };
        let world = World { dtype, window, soft_cap, sinks, ..shape };
        world.check_against_reference();
        world.check_invariance();
    }
}
