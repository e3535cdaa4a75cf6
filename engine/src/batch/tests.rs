//! Tests of `batch`.

use crate::testing::config;
use crate::{BlockPool, Request, RequestId, SampledToken, Scheduler, SchedulerConfig, batch};

fn apply(scheduler: &mut Scheduler, tokens: &[u32]) {
    let plan = scheduler.schedule();
    let sampled = tokens.iter().map(|&id| Ok(SampledToken { id, logprob: None, top: Vec::new() }));
    scheduler.apply(&plan, sampled.collect());
}

#[test]
fn a_step_is_laid_out_token_by_token() {
    let limits = SchedulerConfig { max_chunk: 5, ..config(100, 64) };
    let mut scheduler = Scheduler::new(limits, BlockPool::new(20, 4));
    let add = |scheduler: &mut Scheduler, id, prompt: &[u32]| {
        scheduler
            .try_add(Request::greedy(RequestId(id), prompt.to_vec(), 9), std::time::Duration::ZERO)
            .unwrap();
    };
    // A decodes, B is in the middle of its prompt, C has just come.
    add(&mut scheduler, 0, &[10, 11, 12]);
    apply(&mut scheduler, &[13]);
    apply(&mut scheduler, &[14]);
    add(&mut scheduler, 1, &[20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
    apply(&mut scheduler, &[15]);
    add(&mut scheduler, 2, &[40, 41]);
    let plan = scheduler.schedule();
    let batch = batch::build(&scheduler, &plan).unwrap();
    assert_eq!(batch.input_ids.to_vec1::<u32>().unwrap(), [15, 25, 26, 27, 28, 29, 40, 41]);
    assert_eq!(batch.positions.to_vec1::<u32>().unwrap(), [5, 5, 6, 7, 8, 9, 0, 1]);
    // B does not reach its end, so no row of it is sampled.
    assert_eq!(batch.logits_indices.to_vec1::<u32>().unwrap(), [0, 7]);
    assert_eq!(batch.attn.cu_seqlens_q, [0, 1, 6, 8]);
    assert_eq!(batch.attn.context_lens, [6, 10, 2]);
    assert_eq!(batch.attn.block_tables, [vec![1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(batch.attn.slot_mapping, [2 * 4 + 1, 17, 18, 19, 20, 21, 24, 25]);
}
