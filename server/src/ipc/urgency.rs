//! How urgent a generation is.

use pinion_engine::RouteClass;
use serde::{Deserialize, Serialize};

/// What a caller said about urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urgency {
    /// Which queue it waits in.
    #[serde(with = "Class")]
    pub class: RouteClass,
    /// Milliseconds from now in which the first token must be there; none waits.
    pub deadline_millis: Option<u64>,
}

/// The engine knows no wire format.
#[derive(Serialize, Deserialize)]
#[serde(remote = "RouteClass")]
enum Class {
    Latency,
    Compliance,
    Default,
    Reasoning,
}
