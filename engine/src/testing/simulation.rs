//! Hours of mixed load in minutes: the real engine and scheduler, a model that computes nothing,
//! and a clock that each step moves on by what it would have cost.
//!
//! All that happens follows from a seed: bursts and calm, classes, choices, shared prefixes,
//! deadlines, cancellations, too little memory, guessed tokens, steps that fail. After each step
//! every invariant is checked, and every token against what the sequence must say. A violation
//! panics; the same seed and time reproduce it.

mod load;
mod model;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use self::load::Load;
use self::model::{Poison, SimulatedModel, World, next_token};
use super::engine_with_clock;
use crate::{
    Command, Engine, FinishReason, Request, RequestId, SequenceError, SequenceOutput, SubmitError,
};

/// What a simulation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps that ran.
    pub steps: u64,
    /// Requests and choices that came.
    pub sequences: u64,
    /// Tokens that came out.
    pub tokens: u64,
    /// Those that ended with their text.
    pub completed: u64,
    /// Those that their callers gave up.
    pub aborted: u64,
    /// Those that were refused because a queue was full.
    pub refused: u64,
    /// Those whose deadline could not be met, or was not.
    pub late: u64,
    /// Those that were in a step that failed, or had a row that was no number.
    pub poisoned: u64,
    /// Times a sequence gave its blocks back.
    pub preemptions: u64,
    /// Prompt tokens found in the prefix cache.
    pub prefix_hits: u64,
    /// Guessed tokens that were right.
    pub accepted_draft_tokens: u64,
}

/// A request or choice that has not ended.
#[derive(Debug)]
struct Live {
    max_tokens: usize,
    deadline: Option<Duration>,
    num_tokens: usize,
    /// What comes after the last token.
    next: u32,
    position: usize,
    is_cancelled: bool,
}

struct Simulation {
    engine: Engine,
    world: Arc<World>,
    load: Load,
    live: BTreeMap<RequestId, Live>,
    cancellations: BinaryHeap<Reverse<(Duration, RequestId)>>,
    summary: Summary,
}

/// Runs `time` of load that follows from `seed`, and then until nothing is left.
///
/// # Panics
/// When an invariant does not hold.
pub fn simulate(seed: u64, time: Duration) -> Summary {
    let world = Arc::<World>::default();
    let load = Load::new(seed);
    let config = load.config();
    let model = SimulatedModel::new(config.vocab_size, config.max_model_len, world.clone());
    let clock = world.clone();
    let (engine, _handle) = engine_with_clock(
        Box::new(model),
        config,
        load.num_blocks(),
        Box::new(move || clock.now()),
    );
    let mut simulation = Simulation {
        engine,
        world,
        load,
        live: BTreeMap::new(),
        cancellations: BinaryHeap::new(),
        summary: Summary::default(),
    };
    while simulation.world.now() < time || !simulation.engine.scheduler().is_idle() {
        simulation.turn(time);
    }
    simulation.end()
}

impl Simulation {
    /// What came meanwhile, and one step.
    fn turn(&mut self, end: Duration) {
        let now = self.world.now();
        let mut commands = Vec::new();
        while let Some(request) = self.load.arrival_by(now.min(end)) {
            commands.push(Command::Submit(Box::new(self.admit(request))));
        }
        while let Some(Reverse((at, id))) = self.cancellations.peek().copied()
            && at <= now
        {
            self.cancellations.pop();
            if let Some(live) = self.live.get_mut(&id) {
                live.is_cancelled = true;
                commands.push(Command::Abort(id));
            }
        }
        assert!(self.engine.handle(commands));
        if self.engine.scheduler().is_idle() {
            self.engine.check_cache();
            self.world.advance_to(self.load.next_arrival());
        }
        let poison = self.load.poison(self.world.has_failed());
        self.world.set_poison(poison);
        let step = self.engine.step();
        self.engine.scheduler().check();
        assert_eq!(self.engine.broken(), None);
        for output in step.outputs {
            self.check_output(&output, poison, now);
        }
        for id in self.cancelled() {
            assert!(self.engine.scheduler().sequence(id).is_none(), "{id:?} was cancelled");
        }
    }

    fn admit(&mut self, request: Request) -> Request {
        let position = request.prompt.len() - 1;
        let last = request.prompt[position];
        for id in request.ids() {
            let live = Live {
                max_tokens: request.stop.max_tokens,
                deadline: request.deadline,
                num_tokens: 0,
                next: next_token(last, position),
                position: position + 1,
                is_cancelled: false,
            };
            assert!(self.live.insert(id, live).is_none(), "{id:?} came twice");
            if let Some(at) = self.load.cancellation() {
                self.cancellations.push(Reverse((at, id)));
            }
            self.summary.sequences += 1;
        }
        request
    }

    /// Sequences that should be gone: their cancellation was handled, and has been answered.
    fn cancelled(&self) -> Vec<RequestId> {
        self.live.iter().filter(|(_, live)| live.is_cancelled).map(|(id, _)| *id).collect()
    }

    fn check_output(&mut self, output: &SequenceOutput, poison: Option<Poison>, began: Duration) {
        let live = self.live.get_mut(&output.id).expect("outputs are of those that have not ended");
        if let Some(token) = &output.token {
            assert_eq!(token.id, live.next, "{:?} at {}", output.id, live.position);
            let is_first = live.num_tokens == 0;
            assert_eq!(output.prompt.is_some(), is_first);
            assert!(!is_first || live.deadline.is_none_or(|deadline| began <= deadline));
            live.next = next_token(token.id, live.position);
            live.position += 1;
            live.num_tokens += 1;
            self.summary.tokens += 1;
        }
        let Some(reason) = &output.finish else {
            assert!(live.num_tokens < live.max_tokens);
            return;
        };
        match reason {
            FinishReason::Length => {
                assert_eq!(live.num_tokens, live.max_tokens);
                self.summary.completed += 1;
            }
            FinishReason::Stop => {
                assert_eq!(output.token.as_ref().map(|token| token.id), Some(Load::END_TOKEN));
                self.summary.completed += 1;
            }
            FinishReason::Aborted => {
                assert!(live.is_cancelled);
                self.summary.aborted += 1;
            }
            FinishReason::Error(error) => {
                let has_tokens = 0 < live.num_tokens;
                self.count_error(error, poison, has_tokens);
            }
        }
        self.live.remove(&output.id);
    }

    fn count_error(&mut self, error: &SequenceError, poison: Option<Poison>, has_tokens: bool) {
        let count = match error {
            SequenceError::NonFiniteLogits { .. } => {
                assert_eq!(poison, Some(Poison::Row));
                &mut self.summary.poisoned
            }
            SequenceError::StepFailed { .. } => {
                assert!(matches!(poison, Some(Poison::Error | Poison::Panic)));
                &mut self.summary.poisoned
            }
            SequenceError::Refused(SubmitError::QueueFull { .. }) => &mut self.summary.refused,
            SequenceError::Refused(SubmitError::DeadlineUnmeetable { .. })
            | SequenceError::DeadlineExceeded { .. } => {
                assert!(!has_tokens, "what has a token has met its deadline");
                &mut self.summary.late
            }
            SequenceError::Refused(error) => panic!("{error}"),
        };
        *count += 1;
    }

    fn end(self) -> Summary {
        let stats = self.engine.scheduler().stats();
        assert!(self.live.is_empty(), "without an end: {:?}", self.live);
        assert_eq!((stats.running, stats.waiting), (0, 0));
        assert_eq!(stats.blocks_free, stats.blocks_total, "every block is free");
        assert_eq!(stats.cache_faults, 0);
        Summary {
            steps: self.world.num_steps(),
            preemptions: stats.num_preemptions,
            prefix_hits: stats.prefix_hits,
            accepted_draft_tokens: stats.accepted_draft_tokens,
            ..self.summary
        }
    }
}
