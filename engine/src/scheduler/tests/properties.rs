//! Random traffic, and what must hold whatever comes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::token;
use crate::policy::Place;
use crate::testing::check_schedule;
use crate::{
    BlockPool, Choice, ClassConfig, FinishReason, Request, RequestId, RouteClass, Scheduler,
    SchedulerConfig, Sequence, SequenceError, SequenceOutput,
};

#[derive(Clone, Debug)]
enum Op {
    Add {
        prompt: Vec<u32>,
        max_tokens: usize,
        class: RouteClass,
        cache_salt: u128,
        num_choices: u64,
        /// In steps from now.
        deadline: Option<u64>,
    },
    Abort(u64),
    /// Ends the next step with an error for one row, or for all.
    FailRow,
    FailStep,
    Step,
}

fn op() -> impl Strategy<Value = Op> {
    // Two tokens, so that prefixes meet.
    let prompt = prop::collection::vec(0u32..2, 1..30);
    prop_oneof![
        4 => (prompt, 1usize..12, any_class(), 0u128..2, 0u64..3, 0u64..60).prop_map(
            |(prompt, max_tokens, class, cache_salt, num_choices, patience)| Op::Add {
                prompt,
                max_tokens,
                class,
                cache_salt,
                num_choices,
                deadline: (patience < 40).then_some(patience),
            }
        ),
        1 => (0u64..40).prop_map(Op::Abort),
        1 => Just(Op::FailRow),
        1 => Just(Op::FailStep),
        8 => Just(Op::Step),
    ]
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    (1usize..6, 1usize..20, 1usize..12, any::<bool>(), 0usize..4).prop_map(
        |(max_num_seqs, max_num_batched_tokens, max_chunk, prefix_cache, num_draft_tokens)| {
            SchedulerConfig {
                max_num_seqs,
                max_num_batched_tokens,
                max_chunk,
                max_model_len: 32,
                classes: ClassConfig::with_max_waiting(10),
                vocab_size: 100,
                prefix_cache,
                package: 1,
                num_draft_tokens,
            }
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
    num_steps: u64,
}

impl World {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Add { prompt, max_tokens, class, cache_salt, num_choices, deadline } => {
                let id = RequestId(self.num_added);
                let others = self.num_added + 1..=self.num_added + num_choices;
                let choices = others.map(|id| Choice { id: RequestId(id), seed: id }).collect();
                let deadline = deadline.map(|steps| Duration::from_millis(self.num_steps + steps));
                let base = Request::greedy(id, prompt, max_tokens);
                let request = Request { class, deadline, cache_salt, choices, ..base };
                let ids: Vec<RequestId> = request.ids().collect();
                if self.scheduler.try_add(request, self.now()).is_ok() {
                    self.live.extend(ids.iter().map(|id| (*id, Vec::new())));
                    self.max_tokens.extend(ids.iter().map(|id| (*id, max_tokens)));
                    self.num_added += ids.len() as u64;
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

    /// Each step takes a millisecond.
    fn now(&self) -> Duration {
        Duration::from_millis(self.num_steps)
    }

    fn step(&mut self, failure: Option<bool>) {
        self.num_steps += 1;
        for output in self.scheduler.expire(self.now()) {
            let text = self.live.remove(&output.id).expect("only live requests expire");
            assert!(text.is_empty(), "what has a token has met its deadline");
        }
        let block_size = self.scheduler.limits().block_size;
        let plan = self.scheduler.schedule();
        check_schedule(&self.scheduler, &plan);
        for &(from, to) in &plan.copies {
            for slot in 0..block_size {
                if let Some(content) = self.slots.get(&(from, slot)).cloned() {
                    self.slots.insert((to, slot), content);
                }
            }
        }
        for item in &plan.scheduled {
            let seq = self.scheduler.sequence(item.id).unwrap();
            let slot_of =
                |position: usize| (seq.blocks[position / block_size], position % block_size);
            let salt = seq.request.cache_salt;
            for position in seq.num_computed_tokens..seq.num_computed_tokens + item.num_tokens {
                self.slots.insert(slot_of(position), (salt, prefix(seq, position)));
            }
            for position in 0..seq.num_computed_tokens + item.num_tokens {
                assert_eq!(self.slots[&slot_of(position)], (salt, prefix(seq, position)));
            }
        }
        let error = SequenceError::StepFailed { message: String::new() };
        let outputs = if failure == Some(true) {
            self.scheduler.fail(&plan, &error)
        } else {
            let mut fails = failure.is_some();
            let rows = plan.scheduled.iter().flat_map(|item| {
                let seq = self.scheduler.sequence(item.id).expect("it runs");
                let position = seq.token_ids.len();
                (0..item.num_rows).map(move |row| (item.id.0, (position + row) as u64))
            });
            let rows = rows.map(|(id, position)| {
                if std::mem::take(&mut fails) {
                    Err(error.clone())
                } else {
                    // Repeats itself, so that guesses are made, and not always.
                    Ok(token(((id + position / 3) % 2) as u32))
                }
            });
            let rows = rows.collect();
            let outputs = self.scheduler.apply(&plan, rows);
            self.scheduler.measured(plan.num_tokens(), Duration::from_millis(1));
            outputs
        };
        self.check_outputs(outputs, failure);
    }

    fn check_outputs(&mut self, outputs: Vec<SequenceOutput>, failure: Option<bool>) {
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

/// The tokens up to a position, guessed ones included.
fn prefix(seq: &Sequence, position: usize) -> Vec<u32> {
    (0..=position).map(|at| seq.token(at)).collect()
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
            num_steps: 0,
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

    /// The bound that the rules promise: whoever is first in line has a token in every step, and
    /// those before it in line are a fixed set, so it waits for no more steps than these and itself
    /// have tokens; again for each later one that went first, and may have taken what was computed.
    #[test]
    fn nothing_starves_whatever_keeps_coming(
        config in config(),
        num_blocks in 9usize..20,
        arrivals in prop::collection::vec((any_class(), 1u32..20, 1usize..12, 0u64..3), 150),
    ) {
        let mut scheduler = Scheduler::new(config, BlockPool::new(num_blocks, 4));
        let mut arrivals = arrivals.into_iter();
        let mut all: Vec<Tracked> = Vec::new();
        let (mut num_steps, mut num_arrivals) = (0, 0);
        loop {
            // Two come in each step, as long as there is room in their queues.
            for (class, num_tokens, max_tokens, num_choices) in arrivals.by_ref().take(2) {
                let id = |index: u64| RequestId(1000 * num_arrivals + index);
                let prompt = (0..num_tokens).map(|at| at * (1 + num_arrivals as u32) % 100).collect();
                let choices =
                    (1..=num_choices).map(|index| Choice { id: id(index), seed: index }).collect();
                let base = Request::greedy(id(0), prompt, max_tokens);
                let request = Request { class, choices, ..base };
                if scheduler.try_add(request, Duration::ZERO).is_ok() {
                    let num_tokens = num_tokens as usize + max_tokens;
                    all.extend((0..=num_choices).map(|index| Tracked {
                        id: id(index),
                        place: Place::new(class, num_arrivals + index),
                        num_tokens,
                        lives: (num_steps, None),
                    }));
                    num_arrivals += 1 + num_choices;
                }
            }
            let plan = scheduler.schedule();
            check_schedule(&scheduler, &plan);
            let rows = plan.scheduled.iter().flat_map(|item| vec![Ok(token(1)); item.num_rows]);
            let outputs = scheduler.apply(&plan, rows.collect());
            scheduler.check();
            num_steps += 1;
            for output in outputs.iter().filter(|output| output.finish.is_some()) {
                let ended = all.iter_mut().find(|one| one.id == output.id).unwrap();
                ended.lives.1 = Some(num_steps);
            }
            if scheduler.is_idle() && arrivals.len() == 0 {
                break;
            }
        }
        for one in &all {
            let before = all.iter().filter(|other| {
                other.place <= one.place && other.lives.1.is_none_or(|end| one.lives.0 <= end)
            });
            let num_overtakers = |of: &Tracked| {
                all.iter().filter(|other| of.id < other.id && other.place < of.place).count()
            };
            let bound: usize =
                before.map(|other| other.num_tokens * (1 + num_overtakers(other))).sum();
            let waited = one.lives.1.expect("all have ended") - one.lives.0;
            prop_assert!(waited <= bound, "{one:?}: {waited} steps instead of {bound}");
        }
    }
}

/// A request or choice, and the steps in which it came and ended.
#[derive(Debug)]
struct Tracked {
    id: RequestId,
    place: Place,
    num_tokens: usize,
    lives: (usize, Option<usize>),
}

fn any_class() -> impl Strategy<Value = RouteClass> {
    prop::sample::select(RouteClass::ALL.to_vec())
}
