//! Tests of `block_pool`.

use proptest::prelude::*;

use super::BlockPool;
use crate::{BlockHash, BlockId, CacheScope};

fn hash(of: u32) -> BlockHash {
    BlockHash::root(&CacheScope::default()).chain(&[of])
}

#[test]
fn blocks_are_handed_out_all_or_none_and_never_block_zero() {
    let mut pool = BlockPool::new(4, 2);
    assert_eq!((pool.num_blocks(), pool.num_free()), (3, 3));
    assert_eq!(pool.allocate(4), None);
    assert_eq!(pool.num_free(), 3);
    assert_eq!(pool.allocate(3), Some(vec![1, 2, 3]));
    assert_eq!(pool.allocate(1), None);
    assert_eq!(pool.allocate(0), Some(vec![]));
    pool.check();
}

#[test]
fn the_least_recently_released_prefix_goes_first_and_its_tail_before_its_head() {
    let mut pool = BlockPool::new(6, 2);
    let old = pool.allocate(2).unwrap();
    let new = pool.allocate(2).unwrap();
    for (&block, of) in old.iter().chain(&new).zip(0..) {
        pool.publish(block, hash(of));
    }
    pool.release(old.iter().copied());
    pool.release(new.iter().copied());
    // 5 never held anything, so it is worth least.
    assert_eq!(pool.allocate(5), Some(vec![5, old[1], old[0], new[1], new[0]]));
    assert!(pool.acquire_prefix(&[hash(0)]).is_empty());
    pool.check();
}

#[test]
fn a_hit_saves_a_free_block_from_eviction_and_counts_its_owners() {
    let mut pool = BlockPool::new(4, 2);
    let blocks = pool.allocate(2).unwrap();
    pool.publish(blocks[0], hash(0));
    pool.publish(blocks[1], hash(1));
    pool.release(blocks.iter().copied());
    assert_eq!(pool.acquire_prefix(&[hash(0), hash(7), hash(1)]), [blocks[0]]);
    assert_eq!(pool.acquire_prefix(&[hash(0), hash(1)]), blocks);
    assert_eq!(pool.num_free(), 1);
    assert_eq!(pool.num_references(), 3);
    pool.release([blocks[0]].into_iter());
    assert_eq!(pool.num_free(), 1);
    pool.release(blocks.iter().copied());
    assert_eq!(pool.num_free(), 3);
    pool.check();
}

#[test]
fn of_two_equal_blocks_the_first_is_kept_for_both_owners() {
    let mut pool = BlockPool::new(4, 2);
    let blocks = pool.allocate(2).unwrap();
    assert_eq!(pool.publish(blocks[0], hash(0)), blocks[0]);
    assert_eq!(pool.publish(blocks[0], hash(0)), blocks[0]);
    assert_eq!(pool.publish(blocks[1], hash(0)), blocks[0]);
    pool.check();
    assert_eq!((pool.num_free(), pool.num_references()), (2, 2));
    assert!(pool.is_shared(blocks[0]));
    // The second is worth nothing, so it is taken first.
    assert_eq!(pool.allocate(1), Some(vec![blocks[1]]));
    pool.release([blocks[0], blocks[0]].into_iter());
    // The first is found although nobody owns it, and by who computes it once more.
    assert_eq!(pool.publish(blocks[1], hash(0)), blocks[0]);
    assert_eq!(pool.num_free(), 2);
    pool.check();
}

#[test]
fn a_block_with_two_owners_is_free_when_both_are_gone() {
    let mut pool = BlockPool::new(4, 2);
    let blocks = pool.allocate(2).unwrap();
    pool.retain(&blocks);
    assert!(pool.is_shared(blocks[0]));
    pool.release(blocks.iter().copied());
    assert!(!pool.is_shared(blocks[0]));
    assert_eq!(pool.num_free(), 1);
    pool.release(blocks.iter().copied());
    assert_eq!(pool.num_free(), 3);
    pool.check();
}

#[test]
fn a_forgotten_block_is_not_found() {
    let mut pool = BlockPool::new(3, 2);
    let blocks = pool.allocate(1).unwrap();
    pool.publish(blocks[0], hash(0));
    pool.forget(blocks[0]);
    pool.forget(blocks[0]);
    assert!(pool.acquire_prefix(&[hash(0)]).is_empty());
    pool.publish(blocks[0], hash(1));
    assert_eq!(pool.acquire_prefix(&[hash(1)]), blocks);
    pool.check();
}

#[derive(Clone, Debug)]
enum Op {
    /// Runs a prompt over an alphabet of two tokens, so that blocks repeat at other places.
    Run(Vec<u32>),
    /// Ends a run.
    Free(usize),
    /// Runs, but finds the contents wrong afterwards.
    Spoil(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(0u32..2, 1..24).prop_map(Op::Run),
        4 => (0usize..8).prop_map(Op::Free),
        1 => (0usize..8).prop_map(Op::Spoil),
    ]
}

const SIZE: usize = 2;
const NUM_BLOCKS: usize = 24;

fn hashes(tokens: &[u32]) -> Vec<BlockHash> {
    let mut last = BlockHash::root(&CacheScope { package: 9, adapter: 0, salt: 9 });
    let chain = |block: &[u32]| {
        last = last.chain(block);
        last
    };
    tokens.chunks_exact(SIZE).map(chain).collect()
}

/// The pool, and what each physical block really holds: the whole prefix up to its end.
struct Truth {
    pool: BlockPool,
    prefixes: Vec<Option<Vec<u32>>>,
    live: Vec<Vec<BlockId>>,
}

impl Truth {
    fn run(&mut self, tokens: &[u32]) -> Result<(), TestCaseError> {
        let hashes = hashes(tokens);
        let mut blocks = self.pool.acquire_prefix(&hashes);
        let num_hits = blocks.len();
        for (i, &block) in blocks.iter().enumerate() {
            let prefix = self.prefixes[block as usize].as_deref();
            prop_assert_eq!(prefix, Some(&tokens[..(i + 1) * SIZE]));
        }
        let num_free = self.pool.num_free();
        let Some(new) = self.pool.allocate(tokens.len().div_ceil(SIZE) - num_hits) else {
            prop_assert!(num_free < tokens.len().div_ceil(SIZE) - num_hits);
            self.pool.release(blocks.into_iter());
            return Ok(());
        };
        for &block in &new {
            prop_assert!(self.live.iter().flatten().all(|&owned| owned != block));
        }
        blocks.extend(new);
        for (i, &hash) in hashes.iter().enumerate().skip(num_hits) {
            blocks[i] = self.pool.publish(blocks[i], hash);
            self.prefixes[blocks[i] as usize] = Some(tokens[..(i + 1) * SIZE].to_vec());
        }
        // What was published and not given away since must be found.
        let found = self.pool.acquire_prefix(&hashes);
        prop_assert_eq!(found.len(), hashes.len());
        self.pool.release(found.into_iter());
        self.live.push(blocks);
        Ok(())
    }

    fn spoil(&mut self, at: usize) {
        for block in self.live.swap_remove(at) {
            self.pool.forget(block);
            self.prefixes[block as usize] = None;
            self.pool.release([block].into_iter());
        }
    }
}

proptest! {
    #[test]
    fn a_hit_always_means_the_same_prefix(ops in prop::collection::vec(op(), 1..60)) {
        let mut truth = Truth {
            pool: BlockPool::new(NUM_BLOCKS, SIZE),
            prefixes: vec![None; NUM_BLOCKS],
            live: Vec::new(),
        };
        for op in ops {
            match op {
                Op::Run(tokens) => truth.run(&tokens)?,
                Op::Free(at) if at < truth.live.len() => {
                    let blocks = truth.live.swap_remove(at);
                    truth.pool.release(blocks.into_iter());
                }
                Op::Spoil(at) if at < truth.live.len() => truth.spoil(at),
                Op::Free(_) | Op::Spoil(_) => (),
            }
            truth.pool.check();
            let owned: std::collections::HashSet<_> = truth.live.iter().flatten().collect();
            prop_assert_eq!(truth.pool.num_free(), truth.pool.num_blocks() - owned.len());
        }
    }

    #[test]
    fn an_inner_block_is_never_evicted_before_those_that_follow_it(
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut truth = Truth {
            pool: BlockPool::new(NUM_BLOCKS, SIZE),
            prefixes: vec![None; NUM_BLOCKS],
            live: Vec::new(),
        };
        for op in ops {
            match op {
                Op::Run(tokens) => truth.run(&tokens)?,
                Op::Free(at) | Op::Spoil(at) if at < truth.live.len() => {
                    let blocks = truth.live.swap_remove(at);
                    truth.pool.release(blocks.into_iter());
                }
                Op::Free(_) | Op::Spoil(_) => (),
            }
            for (block, prefix) in truth.pool.blocks.iter().zip(&truth.prefixes) {
                if let (Some(_), Some(prefix)) = (block.hash, prefix) {
                    let hashes = hashes(prefix);
                    prop_assert_eq!(truth.pool.num_found(&hashes), hashes.len());
                }
            }
        }
    }
}

#[test]
fn what_is_out_of_order_is_noticed() {
    let sound = || {
        let mut pool = BlockPool::new(8, SIZE);
        let blocks = pool.allocate(4).unwrap();
        for (&block, of) in blocks.iter().zip(0..) {
            pool.publish(block, hash(of));
        }
        pool.release(blocks.into_iter());
        pool
    };
    assert!(sound().is_sound_and_free(0..100));
    let spoilt = |spoil: fn(&mut BlockPool)| {
        let mut pool = sound();
        spoil(&mut pool);
        let is_noticed = !pool.is_sound_and_free(0..100);
        assert!(is_noticed && (pool.is_sound_and_free(5..8) || pool.num_free != 7));
    };
    spoilt(|pool| pool.blocks[2].ref_count = 1);
    spoilt(|pool| pool.blocks[2].next = 2);
    spoilt(|pool| pool.blocks[2].prev = 99);
    spoilt(|pool| pool.blocks[2].hash = Some(hash(77)));
    spoilt(|pool| assert!(pool.cached.remove(&hash(1)).is_some()));
    spoilt(|pool| pool.num_free = 6);
}
