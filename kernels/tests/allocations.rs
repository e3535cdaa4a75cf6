//! A decoding step asks the allocator for next to nothing once its memory has gone round.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use candle_core::{DType, Device, Result, Tensor};
use pinion_kernels::{
    AttentionBackend, AttentionParams, AttnMetadata, KvCacheSpec, PackedTensor, PagedAttention,
    PagedKvCache, RopeTable, WeightType, ops, pool,
};

/// The system's allocator, counting what each thread asks of it.
struct Counting;

std::thread_local! {
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: it hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.set(REQUESTS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HIDDEN: usize = 128;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const SEQS: usize = 3;

/// One layer of a decoder, and what its step is given.
struct Layer {
    matrices: [PackedTensor; 4],
    norm: Tensor,
    rope: RopeTable,
    cache: PagedKvCache,
    meta: AttnMetadata,
    positions: Tensor,
    ids: Tensor,
}

impl Layer {
    fn new(kind: WeightType) -> Result<Self> {
        let qkv = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
        let shapes =
            [(qkv, HIDDEN), (HIDDEN, HEADS * HEAD_DIM), (4 * HIDDEN, HIDDEN), (HIDDEN, 2 * HIDDEN)];
        let pack = |shape: (usize, usize)| {
            PackedTensor::pack(&Tensor::rand(-1f32, 1f32, shape, &Device::Cpu)?, kind)
        };
        let [a, b, c, d] = shapes;
        let cache = KvCacheSpec {
            num_layers: 1,
            num_kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            block_size: 16,
            num_blocks: 4,
            dtype: DType::BF16,
        };
        Ok(Self {
            matrices: [pack(a)?, pack(b)?, pack(c)?, pack(d)?],
            norm: Tensor::ones(HIDDEN, DType::F32, &Device::Cpu)?,
            rope: RopeTable::new(&[1.0; HEAD_DIM / 2], 1.0, 100),
            cache: PagedKvCache::allocate(&cache, &Device::Cpu)?,
            meta: AttnMetadata {
                cu_seqlens_q: vec![0, 1, 2, 3],
                context_lens: vec![5, 16, 9],
                block_tables: vec![vec![1], vec![2], vec![3]],
                slot_mapping: vec![20, 47, 56],
            },
            positions: Tensor::new(&[4u32, 15, 8], &Device::Cpu)?,
            ids: Tensor::new(&[1u32, 0, 2], &Device::Cpu)?,
        })
    }

    fn step(&self) -> Result<()> {
        let [qkv_proj, o_proj, gate_up, down] = &self.matrices;
        let mut x = ops::embedding(&self.ids, gate_up)?;
        let mut qkv = ops::linear(&ops::rms_norm(&x, &self.norm, 1e-5)?, qkv_proj, None)?;
        let rotated = (0..HEADS + KV_HEADS, HEAD_DIM);
        ops::rope(&mut qkv, rotated, &self.positions, &self.rope)?;
        let params = AttentionParams::new(0.2);
        let h = PagedAttention.forward((&self.cache, &self.meta), 0, &qkv, params)?;
        ops::add_linear(&h, o_proj, None, &mut x)?;
        let h = ops::silu_mul(&ops::linear(&x, gate_up, None)?)?;
        ops::add_linear(&h, down, None, &mut x)?;
        let rows = ops::select_rows(&x, &self.ids)?;
        assert_eq!(rows.rows(), SEQS);
        Ok(())
    }
}

#[test]
fn a_layer_of_a_decoding_step_allocates_only_what_candle_does_to_write_in_place() {
    // With more, a worker may take part for the first time when it is counted.
    pool::set_num_threads(1);
    for kind in [WeightType::Bf16, WeightType::F32] {
        let layer = Layer::new(kind).unwrap();
        for _ in 0..3 {
            layer.step().unwrap();
        }
        let before = REQUESTS.get();
        for _ in 0..10 {
            layer.step().unwrap();
        }
        // A list of operands for each of the two writes to the cache.
        assert_eq!(REQUESTS.get() - before, 10 * 2, "{kind}");
    }
}
