//! What comes when, as a function of a seed.

use std::time::Duration;

use super::model::Poison;
use crate::testing::config;
use crate::{Choice, ClassConfig, Request, RequestId, RouteClass, SchedulerConfig, StopCriteria};

const VOCAB: usize = 61;
const MAX_MODEL_LEN: usize = 320;
/// Beginnings that many prompts share.
const NUM_PREFIXES: u64 = 8;
/// How long bursts and calm last, on average.
const PHASE_MILLIS: u64 = 60_000;

/// The traffic, and the size of the engine that has to bear it.
pub(super) struct Load {
    random: Random,
    config: SchedulerConfig,
    num_blocks: usize,
    num_sequences: u64,
    next_arrival: Duration,
    phase_ends: Duration,
    /// Milliseconds between requests in the present phase.
    interval: u64,
}

impl Load {
    /// Ends some of the sequences.
    pub(super) const END_TOKEN: u32 = 17;

    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = SchedulerConfig {
            max_num_seqs: random.between(4, 40),
            max_num_batched_tokens: random.between(24, 200),
            max_chunk: random.between(8, 120),
            classes: ClassConfig::with_max_waiting(random.between(8, 60)),
            prefix_cache: !random.one_in(8),
            num_draft_tokens: random.between(0, 4),
            ..config(VOCAB, MAX_MODEL_LEN)
        };
        let num_blocks = random.between(90, 500);
        Self {
            random,
            config,
            num_blocks,
            num_sequences: 0,
            next_arrival: Duration::ZERO,
            phase_ends: Duration::ZERO,
            interval: 0,
        }
    }

    pub(super) fn config(&self) -> SchedulerConfig {
        self.config.clone()
    }

    pub(super) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    pub(super) fn next_arrival(&self) -> Duration {
        self.next_arrival
    }

    /// The next request, if it has come by `time`.
    pub(super) fn arrival_by(&mut self, time: Duration) -> Option<Request> {
        if time < self.next_arrival {
            return None;
        }
        let request = self.request();
        if self.phase_ends <= self.next_arrival {
            let length = self.random.up_to(2 * PHASE_MILLIS);
            self.phase_ends = self.next_arrival + Duration::from_millis(length);
            // Bursts, what the engine can just bear, and calm.
            self.interval = [30, 300, 1000, 8000][self.random.between(0, 3)];
        }
        let wait = self.random.up_to(2 * self.interval);
        self.next_arrival += Duration::from_millis(wait);
        Some(request)
    }

    /// When the caller of the request that has just come gives up, if it does.
    pub(super) fn cancellation(&mut self) -> Option<Duration> {
        let patience = Duration::from_millis(self.random.up_to(8000));
        self.random.one_in(8).then(|| self.next_arrival + patience)
    }

    pub(super) fn poison(&mut self, has_failed: bool) -> Option<Poison> {
        if !self.random.one_in(300) {
            return None;
        }
        match self.random.up_to(3) {
            0 => Some(Poison::Row),
            _ if has_failed => None,
            1 => Some(Poison::Error),
            _ => Some(Poison::Panic),
        }
    }

    fn request(&mut self) -> Request {
        let random = &mut self.random;
        let id = self.num_sequences;
        let num_choices = if random.one_in(6) { random.up_to(4) } else { 0 };
        self.num_sequences += 1 + num_choices;
        let choices = (1..=num_choices).map(|at| Choice { id: RequestId(id + at), seed: at });
        let mut prompt = Vec::new();
        if !random.one_in(3) {
            let (prefix, len) = (random.up_to(NUM_PREFIXES), random.between(10, 120) as u64);
            prompt.extend((0..len).map(|at| ((at * 13 + prefix * prefix * 5) % 59) as u32));
        }
        let longest = if random.one_in(10) { 140 } else { 30 };
        let own = random.between(1, longest);
        prompt.extend((0..own).map(|_| random.up_to(59) as u32));
        let longest = if random.one_in(5) { 60 } else { 15 };
        let max_tokens = random.between(1, longest);
        let eos_token_ids = if random.one_in(2) { vec![Self::END_TOKEN] } else { Vec::new() };
        let patience = Duration::from_millis(50 + random.up_to(6000));
        let class = RouteClass::ALL[random.between(0, 3)];
        let cache_salt = u128::from(random.one_in(4));
        Request {
            stop: StopCriteria { eos_token_ids, ..StopCriteria::length(max_tokens) },
            class,
            deadline: random.one_in(4).then(|| self.next_arrival + patience),
            cache_salt,
            choices: choices.collect(),
            ..Request::greedy(RequestId(id), prompt, max_tokens)
        }
    }
}

/// The generator `SplitMix64` (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Below `limit`.
    fn up_to(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.up_to((most - least + 1) as u64) as usize
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.up_to(count) == 0
    }
}
