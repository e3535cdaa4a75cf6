//! The queues of the classes.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::policy::{Place, Share};
use crate::{PerClass, RequestId, RouteClass, Sequence};

/// Sequences that own no blocks, by class and place in line.
#[derive(Debug, Default)]
pub(super) struct Waiting(PerClass<Queue>);

#[derive(Debug, Default)]
struct Queue {
    line: BTreeMap<Place, RequestId>,
    num_sequences: usize,
    num_tokens: usize,
}

impl Waiting {
    pub(super) fn insert(&mut self, seq: &Sequence) {
        let queue = &mut self.0[seq.request.class];
        queue.line.insert(seq.place, seq.request.id);
        queue.num_sequences += seq.num_sequences();
        queue.num_tokens += seq.num_queued_tokens;
    }

    pub(super) fn remove(&mut self, seq: &Sequence) {
        let queue = &mut self.0[seq.request.class];
        queue.line.remove(&seq.place);
        queue.num_sequences -= seq.num_sequences();
        queue.num_tokens -= seq.num_queued_tokens;
    }

    /// The first in line of all classes.
    pub(super) fn first(&self) -> Option<Place> {
        self.next(Share::Lent, None).map(|(place, _)| place)
    }

    /// The first in line after `after` of those that `share` serves.
    pub(super) fn next(&self, share: Share, after: Option<Place>) -> Option<(Place, RequestId)> {
        let first = |queue: &Queue| {
            let range = (after.map_or(Unbounded, Excluded), Unbounded);
            queue.line.range(range).next().map(|(place, id)| (*place, *id))
        };
        match share {
            Share::Kept(class) => first(&self.0[class]),
            Share::Lent => {
                let firsts = self.0.iter().filter_map(|(_, queue)| first(queue));
                firsts.min_by_key(|(place, _)| *place)
            }
        }
    }

    /// Sequences of a class, choices counted.
    pub(super) fn num_sequences(&self, class: RouteClass) -> usize {
        self.0[class].num_sequences
    }

    /// Tokens that the sequences of a class will have computed.
    pub(super) fn num_tokens(&self, class: RouteClass) -> usize {
        self.0[class].num_tokens
    }

    /// Entries, a request with its choices being one.
    pub(super) fn num_entries(&self) -> usize {
        self.0.iter().map(|(_, queue)| queue.line.len()).sum()
    }

    pub(super) fn contains(&self, seq: &Sequence) -> bool {
        self.0[seq.request.class].line.get(&seq.place) == Some(&seq.request.id)
    }
}
