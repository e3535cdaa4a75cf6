//! Plans a step, by the rules of `policy.rs`.

use super::Scheduler;
use crate::policy::{
    Budget, Claim, MAX_PREFIX_WAITS, MAX_SCORED_TOKENS, Place, Running, Share, Usage, gives_way,
};
use crate::{BlockId, PerClass, RequestId, RouteClass, Sequence};

/// One sequence's share of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Which.
    pub id: RequestId,
    /// How many tokens, from `num_computed_tokens` on, guessed ones included.
    pub num_tokens: usize,
    /// Of these, the last ones that get a row of logits: the last token of the sequence and the
    /// guessed ones if the step reaches them, and those before a prompt's token that is scored.
    pub num_rows: usize,
    /// Whether the one before computes these tokens for both: choices share the row of their
    /// prompt's last token.
    pub shares_row: bool,
}

/// A step, and what had to give way for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulerOutput {
    /// In batch order.
    pub scheduled: Vec<Scheduled>,
    /// Sent back to the queue, blocks taken.
    pub preempted: Vec<RequestId>,
    /// Blocks to copy before the step, `(from, to)`, in order.
    pub copies: Vec<(BlockId, BlockId)>,
}

impl SchedulerOutput {
    /// Tokens that are computed.
    pub fn num_tokens(&self) -> usize {
        let own = self.scheduled.iter().filter(|item| !item.shares_row);
        own.map(|item| item.num_tokens).sum()
    }
}

/// What is there to be given out in a step.
struct Step {
    budget: Budget,
    /// Blocks that the tokens of running sequences need, by class.
    blocks: Usage,
    /// Sequences that run, by class.
    places: Usage,
    num_running: usize,
    /// Blocks that running sequences still have to take for the tokens they have.
    num_pledged: usize,
    /// Prompt tokens that may still be given rows of logits.
    num_scores_left: usize,
    /// What running sequences would still take.
    demand: Demand,
    /// First in line of all.
    first: Option<Place>,
    output: SchedulerOutput,
}

/// Tokens that running sequences are behind and were not given, of those that are one behind and
/// of the others. What is met need not be looked for.
#[derive(Default)]
struct Demand(PerClass<[usize; 2]>);

impl Demand {
    fn add(&mut self, item: &Running, num_tokens: usize) {
        self.0[item.class][usize::from(item.is_one_behind())] += num_tokens;
    }

    fn remove(&mut self, item: &Running, num_tokens: usize) {
        self.0[item.class][usize::from(item.is_one_behind())] -= num_tokens;
    }

    fn is_met(&self, share: Share, is_one_behind: bool) -> bool {
        let is_met = |class| self.0[class][usize::from(is_one_behind)] == 0;
        match share {
            Share::Kept(class) => is_met(class),
            Share::Lent => RouteClass::ALL.into_iter().all(is_met),
        }
    }
}

/// What came of trying to let a sequence in.
enum Entry {
    /// It runs, at this index.
    In(usize),
    /// It waits for a prefix, so others may go past it.
    WaitsForPrefix,
    NoRoom,
}

/// Sequences that wait for a prefix and are gone past, in one queue and step.
const MAX_PASSED: usize = 16;

impl Scheduler {
    /// Plans a step.
    pub fn schedule(&mut self) -> SchedulerOutput {
        self.num_schedules += 1;
        let mut step = self.begin_step();
        self.serve_first(&mut step);
        Share::all().for_each(|share| self.serve(&mut step, share));
        self.end_step(step)
    }

    fn begin_step(&mut self) -> Step {
        let total = self.blocks.pool.num_blocks();
        let mut step = Step {
            budget: Budget::new(self.config.max_num_batched_tokens, &self.percents),
            blocks: Usage::new(total, &self.percents),
            places: Usage::new(self.config.max_num_seqs, &self.percents),
            num_running: self.running.len(),
            num_pledged: 0,
            num_scores_left: MAX_SCORED_TOKENS,
            demand: Demand::default(),
            first: self
                .running
                .first()
                .map(|seq| seq.place)
                .into_iter()
                .chain(self.waiting.first())
                .min(),
            output: SchedulerOutput {
                scheduled: Vec::with_capacity(self.running.len()),
                ..SchedulerOutput::default()
            },
        };
        for item in &mut self.running {
            let seq = &self.sequences[&item.id];
            item.num_behind = seq.num_uncomputed_tokens();
            item.num_granted = 0;
            item.is_scoring = seq.is_scoring;
            let num_missing = self.blocks.num_needed(seq, item.num_behind);
            item.num_blocks = seq.blocks.len() - seq.num_found_blocks + num_missing;
            step.num_pledged += num_missing;
            step.blocks.add(item.class, item.num_blocks);
            step.places.add(item.class, 1);
            step.demand.add(item, item.num_behind);
        }
        step
    }

    /// Whoever is first in line of all has a token.
    fn serve_first(&mut self, step: &mut Step) {
        let runs = self.running.first().is_some_and(|seq| Some(seq.place) == step.first);
        let entry = match self.waiting.next(Share::Lent, None) {
            _ if runs => Entry::In(0),
            Some((_, id)) => self.let_in(step, Share::Lent, id),
            None => return,
        };
        if let Entry::In(at) = entry {
            self.grant(step, at, 1.min(step.budget.available(Share::Lent)));
        }
    }

    fn serve(&mut self, step: &mut Step, share: Share) {
        for is_one_behind in [true, false] {
            for at in 0..self.running.len() {
                if step.demand.is_met(share, is_one_behind) {
                    break;
                }
                let item = &self.running[at];
                if item.is_one_behind() == is_one_behind {
                    let num_wanted = item.num_wanted(self.config.max_chunk, share);
                    self.grant(step, at, num_wanted.min(step.budget.available(share)));
                }
            }
        }
        self.serve_waiting(step, share);
    }

    fn serve_waiting(&mut self, step: &mut Step, share: Share) {
        let (mut after, mut num_passed) = (None, 0);
        while 0 < step.budget.available(share) && num_passed <= MAX_PASSED {
            let Some((place, id)) = self.waiting.next(share, after) else { return };
            if step.output.preempted.contains(&id) {
                return;
            }
            match self.let_in(step, share, id) {
                Entry::NoRoom => return,
                Entry::WaitsForPrefix => num_passed += 1,
                Entry::In(at) => {
                    let num_wanted = self.running[at].num_wanted(self.config.max_chunk, share);
                    self.grant(step, at, num_wanted.min(step.budget.available(share)));
                }
            }
            after = Some(place);
        }
    }

    /// Lets a sequence in that waits, if there is room for all its tokens.
    fn let_in(&mut self, step: &mut Step, share: Share, id: RequestId) -> Entry {
        let mut seq = self.sequences.remove(&id).expect("it waits");
        let entry = self.try_let_in(step, share, &mut seq);
        self.sequences.insert(id, seq);
        entry
    }

    fn try_let_in(&mut self, step: &mut Step, share: Share, seq: &mut Sequence) -> Entry {
        let class = seq.request.class;
        let is_first = step.first == Some(seq.place);
        let has_place = step.num_running < self.config.max_num_seqs;
        if !has_place && !is_first && !step.places.keeps(class, 1) {
            return Entry::NoRoom;
        }
        let (num_found, computed_by) = self.blocks.look_up(seq);
        if self.waits_for_prefix(seq, computed_by) {
            return Entry::WaitsForPrefix;
        }
        let num_missing = seq.token_ids.len().div_ceil(self.limits.block_size) - num_found;
        let is_kept = step.places.keeps(class, 1) && step.blocks.keeps(class, num_missing);
        let may_take = is_first || is_kept;
        if share != Share::Lent && !may_take {
            return Entry::NoRoom;
        }
        self.blocks.begin(seq);
        let claim = |num_needed| Claim { place: seq.place, class, num_needed, is_running: false };
        loop {
            let lacks_place = self.config.max_num_seqs <= step.num_running;
            let lacks_blocks = self.blocks.pool.num_free() < num_missing + step.num_pledged;
            let victim = match (lacks_place, lacks_blocks) {
                (false, false) => break,
                _ if !may_take => None,
                (true, _) => gives_way(&self.running, &step.places, step.first, &claim(1)),
                (_, true) => {
                    gives_way(&self.running, &step.blocks, step.first, &claim(num_missing))
                }
            };
            let Some(victim) = victim else {
                self.blocks.give_back(seq);
                return Entry::NoRoom;
            };
            self.preempt(step, victim);
        }
        Entry::In(self.enter(step, seq, num_missing))
    }

    /// Whether `seq` leaves it to one before it in line to compute its next block.
    fn waits_for_prefix(&self, seq: &mut Sequence, computed_by: Option<Place>) -> bool {
        if computed_by.is_none_or(|other| seq.place < other) {
            seq.waits_since = None;
            return false;
        }
        let since = *seq.waits_since.get_or_insert(self.num_schedules);
        self.num_schedules - since < MAX_PREFIX_WAITS
    }

    fn enter(&mut self, step: &mut Step, seq: &mut Sequence, num_missing: usize) -> usize {
        self.waiting.remove(seq);
        self.blocks.announce(seq);
        if seq.num_cached_tokens.is_none() {
            seq.num_cached_tokens = Some(seq.num_computed_tokens);
            let num_reusable = self.blocks.num_reusable(seq) * self.limits.block_size;
            self.counters.prompt_tokens += seq.request.prompt.len() as u64;
            self.counters.prefix_queries += num_reusable as u64;
            self.counters.prefix_hits += seq.num_computed_tokens as u64;
        }
        let at = self.insert_running(seq);
        self.running[at].num_blocks = num_missing;
        step.demand.add(&self.running[at], self.running[at].num_behind);
        step.num_running += 1;
        step.num_pledged += num_missing;
        step.blocks.add(seq.request.class, num_missing);
        step.places.add(seq.request.class, 1);
        at
    }

    fn grant(&mut self, step: &mut Step, at: usize, num_tokens: usize) {
        let is_scoring = self.running[at].is_scoring;
        let most = if is_scoring { step.num_scores_left } else { num_tokens };
        let num_tokens = num_tokens.min(most);
        if num_tokens == 0 {
            return;
        }
        step.num_scores_left -= if is_scoring { num_tokens } else { 0 };
        if self.make_room(step, at, self.running[at].num_granted + num_tokens) {
            let item = &mut self.running[at];
            item.num_granted += num_tokens;
            step.demand.remove(item, num_tokens);
            step.budget.take(item.class, num_tokens);
        }
    }

    /// Takes blocks from others until this one has its own; false if it gave way itself.
    fn make_room(&mut self, step: &mut Step, at: usize, num_tokens: usize) -> bool {
        let Running { id, place, class, .. } = self.running[at];
        loop {
            let seq = self.sequences.get_mut(&id).expect("it runs");
            let num_needed = self.blocks.num_needed(seq, num_tokens);
            if num_needed <= self.blocks.pool.num_free() {
                step.num_pledged -= num_needed;
                step.output.copies.extend(self.blocks.grow(seq, num_tokens));
                return true;
            }
            let claim = Claim { place, class, num_needed: 0, is_running: true };
            let victim = gives_way(&self.running, &step.blocks, step.first, &claim);
            self.preempt(step, victim.unwrap_or(at));
            if victim.is_none() {
                return false;
            }
        }
    }

    /// Sends a sequence back to its queue.
    fn preempt(&mut self, step: &mut Step, at: usize) {
        let item = &mut self.running[at];
        item.is_gone = true;
        step.demand.remove(item, item.num_behind - item.num_granted);
        let seq = self.sequences.get_mut(&item.id).expect("it runs");
        step.num_pledged -= self.blocks.num_needed(seq, seq.num_uncomputed_tokens());
        step.num_running -= 1;
        step.blocks.remove(item.class, item.num_blocks);
        step.places.remove(item.class, 1);
        step.output.preempted.push(item.id);
        self.counters.num_preemptions += 1;
        self.blocks.give_back(seq);
        seq.is_running = false;
        seq.num_queued_tokens = seq.token_ids.len();
        self.waiting.insert(seq);
    }

    /// Writes the plan down, in line order.
    fn end_step(&mut self, mut step: Step) -> SchedulerOutput {
        self.running.retain(|seq| !seq.is_gone);
        let mut num_spare = self.blocks.pool.num_free().saturating_sub(step.num_pledged);
        let mut at = 0;
        while let Some(&Running { id, num_granted, num_behind, is_scoring, .. }) =
            self.running.get(at)
        {
            at += 1;
            if num_granted == 0 {
                continue;
            }
            let is_at_end = num_granted == num_behind;
            let num_rows = if is_scoring {
                self.sequences[&id].num_rows(num_granted)
            } else {
                usize::from(is_at_end)
            };
            let item = Scheduled { id, num_tokens: num_granted, num_rows, shares_row: false };
            step.output.scheduled.push(item);
            if is_at_end && !self.unforked.is_empty() {
                at += self.fork(item, &mut num_spare, &mut step.output.scheduled);
            }
        }
        let mut budget = step.budget.available(Share::Lent);
        for at in 0..step.output.scheduled.len() {
            let (item, others) =
                step.output.scheduled[at..].split_first_mut().expect("not past the end");
            // Siblings share one row and nothing after it.
            let shares_row = item.shares_row || others.first().is_some_and(|next| next.shares_row);
            if 0 < item.num_rows && !shares_row && 0 < budget {
                let num_drafted = self.draft(item, budget, &mut num_spare);
                budget -= num_drafted;
            }
        }
        step.output
    }

    /// Lets a sequence compute guessed tokens too, of what nobody else has use for.
    fn draft(&mut self, item: &mut Scheduled, budget: usize, num_spare: &mut usize) -> usize {
        let seq = self.sequences.get_mut(&item.id).expect("what is scheduled runs");
        let max_length = seq.request.num_draft_tokens.unwrap_or(self.config.num_draft_tokens);
        let is_at_end = item.num_tokens == seq.num_uncomputed_tokens();
        if max_length == 0 || !is_at_end || seq.request.stop.max_tokens == 0 {
            return 0;
        }
        let num_left = seq.request.stop.max_tokens - seq.num_output_tokens();
        let room = self.config.max_model_len - seq.token_ids.len();
        // The row after the last guessed token gives one more.
        let most = num_left.min(room) - 1;
        let limit = most.min(self.config.max_chunk - item.num_tokens).min(budget);
        if limit == 0 {
            return 0;
        }
        seq.guess(max_length, limit);
        let num_blocks = self.blocks.num_needed(seq, item.num_tokens + seq.draft.len());
        if *num_spare < num_blocks {
            seq.draft.clear();
            return 0;
        }
        *num_spare -= num_blocks;
        let copy = self.blocks.grow(seq, item.num_tokens + seq.draft.len());
        debug_assert!(copy.is_none(), "it has a tail of its own");
        item.num_tokens += seq.draft.len();
        item.num_rows += seq.draft.len();
        seq.draft.len()
    }
}
