//! Choices of one request: one prompt, computed once, and then sequences of their own.

use super::{Scheduled, Scheduler};
use crate::policy::Running;
use crate::{RequestId, Sequence};

impl Scheduler {
    /// Gives the choices of a sequence that samples its first token in this step sequences of their
    /// own, which sample theirs from the same row and own the same blocks. Choices that find no
    /// place, or no spare block for their own tokens, wait; the prompt is in the prefix cache then.
    /// Returns how many run.
    pub(super) fn fork(
        &mut self,
        item: Scheduled,
        num_spare: &mut usize,
        scheduled: &mut Vec<Scheduled>,
    ) -> usize {
        let mut parent = self.sequences.remove(&item.id).expect("what is scheduled runs");
        let choices = std::mem::take(&mut parent.request.choices);
        let mut num_forked = 0;
        for (index, choice) in choices.into_iter().enumerate() {
            self.unforked.remove(&choice.id);
            let mut child = parent.for_choice(choice, parent.place.of_choice(index));
            if self.running.len() < self.config.max_num_seqs && 0 < *num_spare {
                *num_spare -= 1;
                num_forked += 1;
                self.blocks.share(&mut parent, &mut child);
                self.insert_running(&mut child);
                scheduled.push(Scheduled { id: choice.id, num_rows: 1, shares_row: true, ..item });
            } else {
                self.waiting.insert(&child);
                child.alarm = child.request.deadline;
                self.alarms.extend(child.alarm.map(|at| (at, choice.id)));
            }
            self.sequences.insert(choice.id, child);
        }
        self.sequences.insert(item.id, parent);
        num_forked
    }

    /// Puts `seq` among those that run, at its place in line.
    pub(super) fn insert_running(&mut self, seq: &mut Sequence) -> usize {
        seq.is_running = true;
        let at = self.running.partition_point(|other| other.place < seq.place);
        let running = Running {
            id: seq.request.id,
            place: seq.place,
            class: seq.request.class,
            num_behind: seq.num_uncomputed_tokens(),
            num_granted: 0,
            num_blocks: 0,
            is_scoring: seq.is_scoring,
            is_gone: false,
        };
        self.running.insert(at, running);
        at
    }

    /// Aborts what has no sequence of its own yet: a choice, or a request that still stands for
    /// choices and leaves its place to the first of them. False if `id` is neither.
    pub(super) fn abort_unforked(&mut self, id: RequestId) -> bool {
        let Some(&parent) = self.unforked.get(&id) else { return self.promote(id) };
        self.unforked.remove(&id);
        self.change(parent, |seq| seq.request.choices.retain(|choice| choice.id != id));
        true
    }

    fn promote(&mut self, id: RequestId) -> bool {
        let choices = self.sequences.get(&id).map(|seq| &seq.request.choices);
        let Some((&first, others)) = choices.and_then(|choices| choices.split_first()) else {
            return false;
        };
        for other in others {
            self.unforked.insert(other.id, first.id);
        }
        self.unforked.remove(&first.id);
        self.change(id, |seq| {
            seq.request.choices.remove(0);
            seq.request.id = first.id;
            seq.request.sampling.seed = first.seed;
        });
        true
    }

    /// Changes the name or the choices of a sequence, wherever it is.
    fn change(&mut self, id: RequestId, change: impl FnOnce(&mut Sequence)) {
        let mut seq = self.sequences.remove(&id).expect("it has not ended");
        if !seq.is_running {
            self.waiting.remove(&seq);
        }
        change(&mut seq);
        let new = seq.request.id;
        if seq.is_running {
            let at = self.running.binary_search_by_key(&seq.place, |other| other.place);
            self.running[at.expect("it runs")].id = new;
        } else {
            self.waiting.insert(&seq);
        }
        if let Some(at) = seq.alarm {
            self.alarms.remove(&(at, id));
            self.alarms.insert((at, new));
        }
        self.sequences.insert(new, seq);
    }
}
