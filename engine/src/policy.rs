//! The rules: who goes first, who gets how much, who gives way. All of them, and nothing else.
//!
//! 1. *Line.* Every request has a place in line: its arrival, put back by as many later requests as
//!    its class lets go first. Within a class the line is by age.
//! 2. *First.* Whoever is first in line of all has a token in every step and gives way to nobody.
//!    Everybody becomes first, because those before it are a fixed set; so nothing starves.
//! 3. *Shares.* Of the tokens of a step, the cache blocks and the sequences that run at a time,
//!    each class is kept a part. In a step each class has its part first, the most urgent first.
//! 4. *Lending.* What a class leaves goes to all the others, by the line; it is taken back from the
//!    last in line of those that have more than their part.
//! 5. *Order in a step.* Sequences that are one token behind go before prompts, prompts that run
//!    before those that wait. Nobody is let in past one of its class, or past anybody into what is
//!    lent, unless that one waits for a prefix. Nobody gives way and comes back in one step.
//!    Prompts that get log probabilities share a fixed number of tokens, besides all this.
//! 6. *Room.* Nobody is let in without room for all its tokens. A running sequence that needs a
//!    block takes it from the last in line behind it, of its own class or of one that has more than
//!    its part; if there is none it gives way itself.
//! 7. *Prefixes.* Whoever would compute blocks that one before it in line is computing waits for
//!    them, for a bounded number of steps.
//! 8. *Deadlines.* A request is refused if its first token would probably come too late: when it
//!    arrives, from the prompts before it in its class, and while it waits, from its own.

use std::time::Duration;

use crate::pace::Pace;
use crate::{PerClass, RequestId, RouteClass};

/// Steps for which a sequence waits for a prefix that another one computes.
pub(crate) const MAX_PREFIX_WAITS: u64 = 64;

/// Prompt tokens that get log probabilities in a step, over all sequences: each needs a row of logits,
/// and rows are long.
pub(crate) const MAX_SCORED_TOKENS: usize = 256;

/// A place in line. Smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    turn: u64,
    arrival: u64,
}

impl Place {
    /// The place of the `arrival`-th request.
    pub(crate) fn new(class: RouteClass, arrival: u64) -> Self {
        Self { turn: arrival + max_overtakers(class), arrival }
    }

    /// The place of a choice of the request in this place; that many arrivals are set aside.
    pub(crate) fn of_choice(self, index: usize) -> Self {
        let behind = 1 + index as u64;
        Self { turn: self.turn + behind, arrival: self.arrival + behind }
    }
}

/// How many later requests may go first. A bound and not a rank, so that nothing waits forever.
fn max_overtakers(class: RouteClass) -> u64 {
    match class {
        RouteClass::Latency => 0,
        RouteClass::Compliance => 8,
        RouteClass::Default => 16,
        RouteClass::Reasoning => 64,
    }
}

/// A running sequence, as the rules see it, during one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) id: RequestId,
    pub(crate) place: Place,
    pub(crate) class: RouteClass,
    /// Tokens that it is behind.
    pub(crate) num_behind: usize,
    /// Of these, the ones that it has in this step.
    pub(crate) num_granted: usize,
    /// Blocks that its tokens need, but for those that it found.
    pub(crate) num_blocks: usize,
    /// Whether each of its tokens needs a row of logits.
    pub(crate) is_scoring: bool,
    /// Gave way in this step.
    pub(crate) is_gone: bool,
}

impl Running {
    /// Whether a token is all that it can take.
    pub(crate) fn is_one_behind(&self) -> bool {
        self.num_behind == 1
    }

    /// Tokens of `share` that it can use besides those it has.
    pub(crate) fn num_wanted(&self, max_chunk: usize, share: Share) -> usize {
        let is_served = match share {
            Share::Kept(class) => class == self.class,
            Share::Lent => true,
        };
        if self.is_gone || !is_served {
            0
        } else {
            self.num_behind.min(max_chunk) - self.num_granted
        }
    }
}

/// From what a sequence is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// The part that is kept for a class.
    Kept(RouteClass),
    /// What the classes leave.
    Lent,
}

impl Share {
    /// In the order in which a step serves them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        RouteClass::ALL.into_iter().map(Self::Kept).chain([Self::Lent])
    }
}

/// The parts of `total` that are kept for the classes. The sum never exceeds the total.
pub(crate) fn parts(total: usize, percents: &PerClass<usize>) -> PerClass<usize> {
    let mut left = total;
    PerClass::from_fn(|class| {
        let part = (total * percents[class] / 100).min(left);
        left -= part;
        part
    })
}

/// The tokens of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    left: usize,
    kept: PerClass<usize>,
}

impl Budget {
    pub(crate) fn new(total: usize, percents: &PerClass<usize>) -> Self {
        Self { left: total, kept: parts(total, percents) }
    }

    /// Tokens that there still are.
    pub(crate) fn available(&self, share: Share) -> usize {
        match share {
            Share::Kept(class) => self.kept[class].min(self.left),
            Share::Lent => self.left,
        }
    }

    /// Whoever takes tokens takes them from the part of its class as long as there are any.
    pub(crate) fn take(&mut self, class: RouteClass, num_tokens: usize) {
        self.left -= num_tokens;
        self.kept[class] = self.kept[class].saturating_sub(num_tokens);
    }
}

/// How much of a resource each class has, and how much is kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    kept: PerClass<usize>,
    used: PerClass<usize>,
}

impl Usage {
    pub(crate) fn new(total: usize, percents: &PerClass<usize>) -> Self {
        Self { kept: parts(total, percents), used: PerClass::default() }
    }

    pub(crate) fn add(&mut self, class: RouteClass, count: usize) {
        self.used[class] += count;
    }

    pub(crate) fn remove(&mut self, class: RouteClass, count: usize) {
        self.used[class] -= count;
    }

    /// Whether so much more is within the part of the class.
    pub(crate) fn keeps(&self, class: RouteClass, more: usize) -> bool {
        self.used[class] + more <= self.kept[class]
    }
}

/// Who needs something that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) place: Place,
    pub(crate) class: RouteClass,
    /// More than is counted as its class's already.
    pub(crate) num_needed: usize,
    /// Whether it runs; one that waits takes nothing but what is kept for it.
    pub(crate) is_running: bool,
}

/// Which of `running` gives way to `claim`, as an index; `None` if it has to do without. `first` is
/// the first in line of all.
pub(crate) fn gives_way(
    running: &[Running],
    usage: &Usage,
    first: Option<Place>,
    claim: &Claim,
) -> Option<usize> {
    let last = |may_go: &dyn Fn(&Running) -> bool| {
        let others = running.iter().enumerate().filter(|(_, other)| {
            !other.is_gone
                && other.place != claim.place
                && Some(other.place) != first
                && may_go(other)
        });
        others.max_by_key(|(_, other)| other.place).map(|(at, _)| at)
    };
    let has_more = |other: &Running| !usage.keeps(other.class, 0);
    let is_first = Some(claim.place) == first;
    let mut found = None;
    if is_first || usage.keeps(claim.class, claim.num_needed) {
        found = last(&has_more);
    }
    if found.is_none() && claim.is_running {
        let is_own = |other: &Running| other.class == claim.class || has_more(other);
        found = last(&|other| claim.place < other.place && is_own(other));
    }
    if found.is_none() && is_first { last(&|_| true) } else { found }
}

/// Time to the first token of a request of `class` that needs `num_tokens` computed: after what its
/// class has to compute already, beside what the other classes are kept of each step.
pub(crate) fn time_to_first_token(
    pace: &Pace,
    budget: usize,
    percents: &PerClass<usize>,
    num_behind: &PerClass<usize>,
    (class, num_tokens): (RouteClass, usize),
) -> Option<Duration> {
    let kept = parts(budget, percents);
    let others = kept.iter().filter(|(other, _)| *other != class);
    let num_others: usize = others.map(|(other, &kept)| kept.min(num_behind[other])).sum();
    let num_tokens = num_behind[class] + num_tokens;
    let num_steps = num_tokens.div_ceil((budget - num_others).max(1));
    pace.time(num_steps, num_tokens + num_steps * num_others)
}

#[cfg(test)]
mod tests;
