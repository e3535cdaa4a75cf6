//! The blocks of a sequence: found, taken, shared, published and given back.

use std::collections::HashMap;

use crate::policy::Place;
use crate::{BlockHash, BlockId, BlockPool, Sequence};

/// The pool, and which full blocks are on their way into it.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) pool: BlockPool,
    /// Full blocks that running sequences are computing, and the places of these in line.
    computing: HashMap<BlockHash, Place>,
    prefix_cache: bool,
    package: u128,
    /// The block at which the next integrity check begins.
    unchecked: usize,
}

/// Blocks of one integrity check.
const CHECKED_BLOCKS: usize = 4096;

impl Blocks {
    pub(super) fn new(pool: BlockPool, prefix_cache: bool, package: u128) -> Self {
        Self { pool, computing: HashMap::new(), prefix_cache, package, unchecked: 0 }
    }

    /// Checks a part of the pool, of which nobody may own a block; the next call checks the next
    /// part. What is wrong costs all that is cached, and nothing else. True if nothing was.
    pub(super) fn check_idle(&mut self) -> bool {
        let part = self.unchecked..self.unchecked + CHECKED_BLOCKS;
        self.unchecked = if part.end < self.pool.num_blocks() { part.end } else { 0 };
        let is_sound = self.computing.is_empty() && self.pool.is_sound_and_free(part);
        if !is_sound {
            self.pool = BlockPool::new(self.pool.num_blocks() + 1, self.pool.block_size());
            self.computing.clear();
        }
        is_sound
    }

    /// Blocks that `seq` has to take to compute `num_tokens`.
    pub(super) fn num_needed(&self, seq: &Sequence, num_tokens: usize) -> usize {
        let num_copied = usize::from(seq.shares_tail && self.shared_tail(seq).is_some());
        let num_tokens = seq.num_computed_tokens + num_tokens;
        let num_owned = seq.blocks.len();
        // Most steps stay in the block they are in: no division.
        if num_tokens <= num_owned * self.pool.block_size() {
            return num_copied;
        }
        num_tokens.div_ceil(self.pool.block_size()) - num_owned + num_copied
    }

    /// Takes what `num_needed` says; the pool must have it. Of a last block that a sibling owns
    /// too it takes a copy: the result says from where to where.
    pub(super) fn grow(
        &mut self,
        seq: &mut Sequence,
        num_tokens: usize,
    ) -> Option<(BlockId, BlockId)> {
        let num_needed = self.num_needed(seq, num_tokens);
        if num_needed == 0 {
            seq.shares_tail = false;
            return None;
        }
        let new = self.pool.allocate(num_needed).expect("there is room");
        seq.blocks.extend(new);
        let tail = if seq.shares_tail { self.shared_tail(seq) } else { None };
        seq.shares_tail = false;
        let at = tail?;
        let from = seq.blocks.swap_remove(at);
        self.pool.release([from].into_iter());
        Some((from, seq.blocks[at]))
    }

    /// The block that `seq` writes next, if it is begun and others own it too.
    fn shared_tail(&self, seq: &Sequence) -> Option<usize> {
        let block_size = self.pool.block_size();
        let at = seq.num_computed_tokens / block_size;
        let is_begun = !seq.num_computed_tokens.is_multiple_of(block_size);
        (is_begun && self.pool.is_shared(seq.blocks[at])).then_some(at)
    }

    /// How many blocks of `seq` would be found, and the place in line of who computes the next one.
    pub(super) fn look_up(&self, seq: &mut Sequence) -> (usize, Option<Place>) {
        let hashes = self.reusable(seq);
        let num_found = self.pool.num_found(hashes);
        let next = hashes.get(num_found).and_then(|hash| self.computing.get(hash));
        (num_found, next.copied())
    }

    /// Gives `seq` the blocks it finds.
    pub(super) fn begin(&mut self, seq: &mut Sequence) {
        let found = self.pool.acquire_prefix(self.reusable(seq));
        seq.num_computed_tokens = found.len() * self.pool.block_size();
        seq.num_published_blocks = found.len();
        seq.num_found_blocks = found.len();
        seq.blocks = found;
    }

    /// Tells others which full blocks `seq` is going to compute.
    pub(super) fn announce(&mut self, seq: &mut Sequence) {
        if !self.prefix_cache {
            return;
        }
        let num_full = seq.token_ids.len() / self.pool.block_size();
        let (place, num_found) = (seq.place, seq.num_published_blocks);
        let hashes = seq.full_block_hashes(num_full, self.pool.block_size(), self.package);
        for hash in &hashes[num_found..] {
            self.computing.entry(*hash).or_insert(place);
        }
        seq.num_announced_blocks = num_full;
    }

    /// Lets `child` own all blocks of `parent`, and so all that the step writes to them.
    pub(super) fn share(&mut self, parent: &mut Sequence, child: &mut Sequence) {
        self.pool.retain(&parent.blocks);
        child.blocks.clone_from(&parent.blocks);
        child.num_found_blocks = child.blocks.len();
        child.num_computed_tokens = parent.num_computed_tokens;
        child.num_published_blocks = parent.num_published_blocks;
        child.num_cached_tokens = parent.num_cached_tokens;
        (parent.shares_tail, child.shares_tail) = (true, true);
    }

    /// Makes the full blocks of `seq` findable. Where others were first, it goes on with theirs:
    /// equal tokens have equal K/V, bit by bit.
    pub(super) fn publish(&mut self, seq: &mut Sequence) {
        let block_size = self.pool.block_size();
        let num_tokens = (seq.num_published_blocks + 1) * block_size;
        if !self.prefix_cache || seq.num_computed_tokens < num_tokens {
            return;
        }
        let num_full = seq.num_computed_tokens / block_size;
        self.hashes(seq, num_full);
        for at in seq.num_published_blocks..num_full {
            let hash = seq.block_hash(at);
            seq.blocks[at] = self.pool.publish(seq.blocks[at], hash);
            if at < seq.num_announced_blocks {
                self.retract(seq.place, hash);
            }
        }
        seq.num_published_blocks = num_full;
    }

    /// K/V that led to an error must not be found by others.
    pub(super) fn forget(&mut self, seq: &Sequence) {
        seq.blocks.iter().for_each(|&block| self.pool.forget(block));
    }

    /// Takes all blocks from `seq`.
    pub(super) fn give_back(&mut self, seq: &mut Sequence) {
        for at in seq.num_published_blocks..seq.num_announced_blocks {
            self.retract(seq.place, seq.block_hash(at));
        }
        self.pool.release(std::mem::take(&mut seq.blocks).into_iter());
        seq.num_computed_tokens = 0;
        seq.num_published_blocks = 0;
        seq.num_announced_blocks = 0;
        seq.num_found_blocks = 0;
        seq.shares_tail = false;
    }

    /// Blocks of the whole prefix that are looked up.
    pub(super) fn num_reusable(&self, seq: &Sequence) -> usize {
        // The last token must run again: its logits are not cached.
        let num_full = (seq.token_ids.len() - 1) / self.pool.block_size();
        // Nor are those of a prompt that is scored.
        if self.prefix_cache && !seq.is_scoring { num_full } else { 0 }
    }

    fn reusable<'a>(&self, seq: &'a mut Sequence) -> &'a [BlockHash] {
        self.hashes(seq, self.num_reusable(seq))
    }

    fn hashes<'a>(&self, seq: &'a mut Sequence, num_blocks: usize) -> &'a [BlockHash] {
        seq.full_block_hashes(num_blocks, self.pool.block_size(), self.package)
    }

    fn retract(&mut self, place: Place, hash: BlockHash) {
        if self.computing.get(&hash) == Some(&place) {
            self.computing.remove(&hash);
        }
    }

    /// Panics unless what is said to be computed has somebody who does.
    pub(super) fn check<'a>(&self, running: impl Iterator<Item = &'a Sequence>) {
        self.pool.check();
        let running: Vec<&Sequence> = running.collect();
        for place in self.computing.values() {
            assert!(running.iter().any(|seq| seq.place == *place), "{place:?} computes nothing");
        }
        let num_listed: usize = running.iter().map(|seq| seq.blocks.len()).sum();
        assert_eq!(num_listed, self.pool.num_references());
    }
}
