//! What attention must know about a step.

use candle_core::{Result, bail};

use crate::KvCacheSpec;

/// The sequences of a step, one after the other. Built once per step.
#[derive(Clone, Debug, Default)]
pub struct AttnMetadata {
    /// Prefix sums of the query lengths; `len == num_seqs + 1`.
    pub cu_seqlens_q: Vec<u32>,
    /// Keys visible to the last query of each sequence.
    pub context_lens: Vec<u32>,
    /// Physical blocks of each sequence, in order.
    pub block_tables: Vec<Vec<u32>>,
    /// Where to write the K/V of each token of the step.
    pub slot_mapping: Vec<u32>,
}

impl AttnMetadata {
    /// Number of sequences.
    pub(crate) fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// First query of a sequence in the step, and the number of its queries.
    pub(crate) fn queries(&self, seq: usize) -> (usize, usize) {
        let (start, end) = (self.cu_seqlens_q[seq], self.cu_seqlens_q[seq + 1]);
        (start as usize, (end - start) as usize)
    }

    /// Position of the first query of a sequence.
    pub(crate) fn first_position(&self, seq: usize) -> usize {
        self.context_lens[seq] as usize - self.queries(seq).1
    }

    /// Refuses metadata that does not describe `num_tokens` tokens in a cache of this shape.
    pub(crate) fn check(&self, spec: &KvCacheSpec, num_tokens: usize) -> Result<()> {
        let num_seqs = self.num_seqs();
        let ends = (self.cu_seqlens_q.first(), self.cu_seqlens_q.last());
        if self.cu_seqlens_q.len() != num_seqs + 1
            || self.block_tables.len() != num_seqs
            || self.slot_mapping.len() != num_tokens
            || ends != (Some(&0), Some(&(num_tokens as u32)))
            || !self.cu_seqlens_q.is_sorted()
        {
            bail!("attention: metadata does not describe {num_tokens} tokens: {self:?}")
        }
        for (seq, blocks) in self.block_tables.iter().enumerate() {
            let (context, (_, queries)) = (self.context_lens[seq] as usize, self.queries(seq));
            if context < queries || context > blocks.len() * spec.block_size {
                bail!(
                    "attention: sequence {seq} has {queries} queries, {} blocks of {} and a \
                     context of {context}",
                    blocks.len(),
                    spec.block_size
                )
            }
            if let Some(block) = blocks.iter().find(|&&block| block as usize >= spec.num_blocks) {
                bail!("attention: the kv cache has {} blocks: {block}", spec.num_blocks)
            }
        }
        Ok(())
    }
}
