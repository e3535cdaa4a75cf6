//! Random traffic, and what must hold whatever comes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::token;
use crate::testing::check_schedule;
use crate::{
    BlockPool, ClassConfig, FinishReason, Request, RequestId, RouteClass, Scheduler,
    SchedulerConfig, SequenceError,
};

#[derive(Clone, Debug)]
enum Op {
    Add {
        prompt: Vec<u32>,
        max_tokens: usize,
        class: RouteClass,
        cache_salt: u128,
    },
    Abort(u64),
    /// Ends the next step with an error for one row, or for all.
    FailRow,
    FailStep,
    Step,
}

fn op() -> impl Strategy<Value = Op> {
    use RouteClass::{Compliance, Default, Latency, Reasoning};
    let class = prop::sample::select(vec![Compliance, Default, Latency, Reasoning]);
    // Two tokens, so that prefixes meet.
    let prompt = prop::collection::vec(0u32..2, 1..30);
    prop_oneof![
        4 => (prompt, 1usize..12, class, 0u128..2).prop_map(
            |(prompt, max_tokens, class, cache_salt)| Op::Add { prompt, max_tokens, class, cache_salt }
        ),
        1 => (0u64..40).prop_map(Op::Abort),
        1 => Just(Op::FailRow),
        1 => Just(Op::FailStep),
        8 => Just(Op::Step),
    ]
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    (1usize..6, 1usize..20, 1usize..12, any::<bool>()).prop_map(
        |(max_num_seqs, max_num_batched_tokens, max_chunk, prefix_cache)| SchedulerConfig {
            max_num_seqs,
            max_num_batched_tokens,
            max_chunk,
            max_model_len: 32,
            classes: ClassConfig::with_max_waiting(10),
            vocab_size: 100,
            prefix_cache,
        },
    )
}

/// A scheduler, and a cache that knows which prefix each slot was computed from.
struct World {
    scheduler: Scheduler,
    slots: HashMap<(u32, usize), (u128, Vec<u32>)>,
    /// Live requests and their output so far.
    live: BTreeMap<RequestId, Vec<u32>>,
    max_tokens: HashMap<RequestId, usize>,
    num_added: u64,
}

impl World {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { prompt, max_tokens, class, cache_salt } => {
                let id = RequestId(self.num_added);
                let base = Request::greedy(id, prompt, max_tokens);
                let request = Request { class, cache_salt, ..base };
                if self.scheduler.try_add(request, Duration::ZERO).is_ok() {
                    self.live.insert(id, Vec::new());
                    self.max_tokens.insert(id, max_tokens);
                    self.num_added += 1;
                }
            }
            Op::Abort(id) => {
                let was_live = self.live.remove(&RequestId(id)).is_some();
                assert_eq!(self.scheduler.abort(RequestId(id)).is_some(), was_live);
            }
            Op::FailRow => self.step(Some(false)),
            Op::FailStep => self.step(Some(true)),
            Op::Step => self.step(None),
        }
        self.scheduler.check();
    }

    fn step(&mut self, failure: Option<bool>) {
        let block_size = self.scheduler.limits().block_size;
        let plan = self.scheduler.schedule();
        check_schedule(&self.scheduler, &plan);
        for item in &plan.scheduled {
            let seq = self.scheduler.sequence(item.id).unwrap();
            let slot_of =
                |position: usize| (seq.blocks[position / block_size], position % block_size);
            let salt = seq.request.cache_salt;
            for position in seq.num_computed_tokens..seq.num_computed_tokens + item.num_tokens {
                let content = (salt, seq.token_ids[..=position].to_vec());
                self.slots.insert(slot_of(position), content);
            }
            for position in 0..seq.num_computed_tokens + item.num_tokens {
                let (owner, prefix) = &self.slots[&slot_of(position)];
                assert_eq!((*owner, &prefix[..]), (salt, &seq.token_ids[..=position]));
            }
        }
        let error = SequenceError::StepFailed { message: String::new() };
        let outputs = if failure == Some(true) {
            self.scheduler.fail(&plan, &error)
        } else {
            let mut fails = failure.is_some();
            let samples = plan.scheduled.iter().filter(|item| item.samples);
            let rows = samples.map(|item| {
                if std::mem::take(&mut fails) {
                    Err(error.clone())
                } else {
                    Ok(token(item.id.0 as u32 % 2))
                }
            });
            self.scheduler.apply(&plan, rows.collect())
        };
        for output in outputs {
            let text = self.live.get_mut(&output.id).expect("only live requests have outputs");
            text.extend(output.token.as_ref().map(|token| token.id));
            match &output.finish {
                None => assert!(text.len() < self.max_tokens[&output.id]),
                Some(FinishReason::Error(_)) => assert!(failure.is_some()),
                Some(reason) => {
                    assert_eq!(*reason, FinishReason::Length);
                    assert!(text.len() <= self.max_tokens[&output.id]);
                }
            }
            if output.finish.is_some() {
                self.live.remove(&output.id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_comes_no_block_is_lost_and_every_request_ends(
        config in config(),
        num_blocks in 9usize..20,
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let pool = BlockPool::new(num_blocks, 4);
        let mut world = World {
            scheduler: Scheduler::new(config, pool),
            slots: HashMap::new(),
            live: BTreeMap::new(),
            max_tokens: HashMap::new(),
            num_added: 0,
        };
        ops.into_iter().for_each(|op| world.apply(op));
        let mut num_steps = 0;
        while !world.scheduler.is_idle() {
            world.apply(Op::Step);
            num_steps += 1;
            prop_assert!(num_steps < 20_000, "no end: {:?}", world.scheduler.stats());
        }
        prop_assert!(world.live.is_empty());
        let stats = world.scheduler.stats();
        prop_assert_eq!(stats.blocks_free, stats.blocks_total);
    }

    #[test]
    fn a_request_is_served_while_others_keep_coming(
        config in config(),
        class in prop::sample::select(vec![RouteClass::Default, RouteClass::Reasoning]),
        prompts in prop::collection::vec(prop::collection::vec(0u32..100, 1..20), 300),
    ) {
        let mut scheduler = Scheduler::new(config, BlockPool::new(12, 4));
        let id = RequestId(u64::MAX);
        let request = Request { class, ..Request::greedy(id, (0..20).collect(), 8) };
        scheduler.try_add(request, Duration::ZERO).unwrap();
        let (mut num_sent, mut was_served) = (0, false);
        while !was_served {
            prop_assert!(num_sent < prompts.len(), "{:?}", scheduler.stats());
            // More urgent requests come in every step, until the queue is full.
            while scheduler.stats().waiting < 10 && num_sent < prompts.len() {
                let base = Request::greedy(RequestId(num_sent as u64), prompts[num_sent].clone(), 4);
                scheduler.try_add(Request { class: RouteClass::Latency, ..base }, Duration::ZERO).unwrap();
                num_sent += 1;
            }
            let plan = scheduler.schedule();
            check_schedule(&scheduler, &plan);
            let rows = plan.scheduled.iter().filter(|item| item.samples).map(|_| Ok(token(1)));
            let outputs = scheduler.apply(&plan, rows.collect());
            was_served = outputs.iter().any(|output| output.id == id && output.finish.is_some());
        }
    }
}
