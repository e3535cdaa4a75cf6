//! Who goes first.

use crate::RouteClass;

/// A place in line. Smaller goes first, and gives way last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueKey {
    turn: u64,
    arrival: u64,
}

impl QueueKey {
    /// The place of the `arrival`-th request.
    pub(crate) fn new(class: RouteClass, arrival: u64) -> Self {
        Self { turn: arrival + max_overtakers(class), arrival }
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

#[cfg(test)]
mod tests;
