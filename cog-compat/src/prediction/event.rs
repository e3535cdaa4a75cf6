//! The events of a prediction's SSE stream.
use serde_json::{Value, json};

use super::metrics::MetricMode;
use super::state::LogSource;

/// The comment that keeps an idle stream open, sent every 15 seconds.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";

/// One event of a prediction, as [`super::PredictionState`] makes them.
#[derive(Debug, Clone, PartialEq)]
pub enum PredictionEvent {
    /// It runs now.
    Start {
        /// The prediction's id.
        id: String,
    },
    /// There is one more output.
    Output {
        /// The output.
        chunk: Value,
        /// Its place, from 0.
        index: usize,
    },
    /// There is more in the log.
    Log {
        /// Where it was written.
        source: LogSource,
        /// The text.
        data: String,
    },
    /// A metric has changed.
    Metric {
        /// How `value` is to be applied.
        mode: MetricMode,
        /// The metric, dots between levels.
        name: String,
        /// The change, not the total.
        value: Value,
    },
    /// It has ended; the last event.
    Completed {
        /// The prediction as it ended.
        snapshot: Value,
    },
}

/// Why a stream ends before its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFault {
    /// The reader came too late, and the oldest events are gone.
    Truncated {
        /// How many are gone.
        skipped: u64,
    },
    /// The reader was too slow.
    Lagged {
        /// How many it has missed.
        skipped: u64,
    },
}

impl PredictionEvent {
    /// The `event:` of the SSE frame.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Output { .. } => "output",
            Self::Log { .. } => "log",
            Self::Metric { .. } => "metric",
            Self::Completed { .. } => "completed",
        }
    }

    /// The `data:` of the SSE frame.
    pub fn data(&self) -> Value {
        match self {
            Self::Start { id } => json!({"id": id, "status": "processing"}),
            Self::Output { chunk, index } => {
                json!({"chunk": super::sorted(chunk.clone()), "index": index})
            }
            Self::Log { source, data } => json!({"data": data, "source": source.name()}),
            Self::Metric { mode, name, value } => {
                json!({"mode": mode.name(), "name": name, "value": super::sorted(value.clone())})
            }
            Self::Completed { snapshot } => snapshot.clone(),
        }
    }

    /// The whole SSE frame, with the blank line that ends it.
    pub fn frame(&self) -> String {
        frame(self.name(), &self.data())
    }
}

impl StreamFault {
    /// The `data:` of the `error` event.
    pub fn data(self) -> Value {
        let (error, skipped) = match self {
            Self::Truncated { skipped } => {
                ("SSE stream replay truncated; events were dropped", skipped)
            }
            Self::Lagged { skipped } => ("SSE stream lagged; events were dropped", skipped),
        };
        json!({"error": error, "skipped": skipped})
    }

    /// The whole SSE frame of the `error` event.
    pub fn frame(self) -> String {
        frame("error", &self.data())
    }
}

fn frame(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
