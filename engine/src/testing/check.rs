//! Limits for tests, and what every plan must keep to.

use std::collections::HashSet;

use crate::{ClassConfig, Scheduler, SchedulerConfig, SchedulerOutput};

/// Limits that bind nothing but the length.
pub fn config(vocab_size: usize, max_model_len: usize) -> SchedulerConfig {
    SchedulerConfig {
        max_num_seqs: 64,
        max_num_batched_tokens: 512,
        max_chunk: 512,
        max_model_len,
        classes: ClassConfig::with_max_waiting(1024),
        vocab_size,
        prefix_cache: true,
        num_draft_tokens: 0,
        package: 0,
    }
}

/// Panics unless `plan`, just made by `scheduler`, keeps every limit and could run.
pub fn check_schedule(scheduler: &Scheduler, plan: &SchedulerOutput) {
    let config = scheduler.config();
    let block_size = scheduler.limits().block_size;
    assert!(plan.num_tokens() <= config.max_num_batched_tokens);
    assert!(plan.scheduled.len() <= config.max_num_seqs);
    assert_eq!(plan.scheduled.is_empty(), scheduler.is_idle(), "a step makes progress");
    let (mut ids, mut written) = (HashSet::new(), HashSet::new());
    let mut row = None;
    for item in &plan.scheduled {
        assert!(ids.insert(item.id), "{:?} is scheduled twice", item.id);
        assert!(!plan.preempted.contains(&item.id), "{:?} is also preempted", item.id);
        let seq = scheduler.sequence(item.id).expect("a scheduled sequence runs");
        let range = seq.num_computed_tokens..seq.num_computed_tokens + item.num_tokens;
        assert!(!range.is_empty() && item.num_tokens <= config.max_chunk);
        assert!(range.end <= config.max_model_len);
        let end = seq.token_ids.len() + seq.draft.len();
        assert!(range.end == end || range.end < seq.token_ids.len());
        let num_sampled = if range.end == end { 1 + seq.draft.len() } else { 0 };
        let num_scored = seq.num_to_score(range.start + 1..range.end + 1);
        assert_eq!(item.num_rows, num_scored + num_sampled);
        if item.shares_row {
            assert_eq!(row, Some((&seq.token_ids, &seq.blocks, item.num_tokens)));
            continue;
        }
        row = (num_sampled == 1).then_some((&seq.token_ids, &seq.blocks, item.num_tokens));
        for position in range {
            let slot = (seq.blocks[position / block_size], position % block_size);
            assert!(slot.0 != 0 && written.insert(slot), "slot {slot:?} is written twice");
        }
    }
    let written: HashSet<u32> = written.into_iter().map(|(block, _)| block).collect();
    // A block that is written is read by nobody else, but those that share its row.
    for item in plan.scheduled.iter().filter(|item| !item.shares_row) {
        let seq = scheduler.sequence(item.id).expect("a scheduled sequence runs");
        for (at, block) in seq.blocks.iter().enumerate() {
            let is_full = (at + 1) * block_size <= seq.num_computed_tokens;
            assert!(!is_full || !written.contains(block), "block {block} is shared and written");
        }
    }
}
