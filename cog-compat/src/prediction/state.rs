//! A prediction from its start to its end, as a state machine.
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::event::PredictionEvent;
use super::metrics::{MetricError, MetricMode, Metrics};
use super::sorted;

/// Where a prediction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, not running yet.
    Starting,
    /// Running.
    Processing,
    /// Ended with its whole output.
    Succeeded,
    /// Ended by a fault.
    Failed,
    /// Ended because its caller wanted no more.
    Canceled,
}

/// What the output is in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputShape {
    /// A list of all outputs, even of one or none.
    List,
    /// The one output itself; null if there is none.
    Single,
}

/// Where a line of the log was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A step that a prediction cannot take where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a prediction that is {from} cannot {step}")]
pub struct TransitionError {
    /// Where it stands.
    pub from: Status,
    /// What was tried.
    pub step: &'static str,
}

/// One prediction: `starting`, then `processing`, then one of the three ends. It gathers outputs, logs and metrics on
/// the way, and every step gives the event to stream.
#[derive(Debug, Clone)]
pub struct PredictionState {
    id: String,
    input: Value,
    shape: OutputShape,
    status: Status,
    outputs: Vec<Value>,
    logs: String,
    metrics: Metrics,
    error: Option<String>,
}

impl PredictionState {
    /// A prediction that was accepted. `input` is what the caller gave, for the snapshot that `PUT` answers with.
    pub fn new(id: impl Into<String>, input: Value, shape: OutputShape) -> Self {
        let (id, status, metrics) = (id.into(), Status::Starting, Metrics::default());
        Self {
            id,
            input,
            shape,
            status,
            outputs: Vec::new(),
            logs: String::new(),
            metrics,
            error: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The outputs so far.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// The log so far.
    pub fn logs(&self) -> &str {
        &self.logs
    }

    /// The metrics so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begins to run.
    pub fn start(&mut self) -> Result<PredictionEvent, TransitionError> {
        if self.status != Status::Starting {
            return Err(TransitionError { from: self.status, step: "start" });
        }
        self.status = Status::Processing;
        Ok(PredictionEvent::Start { id: self.id.clone() })
    }

    /// Adds an output.
    pub fn push_output(&mut self, chunk: Value) -> Result<PredictionEvent, TransitionError> {
        self.running("give output")?;
        let index = self.outputs.len();
        self.outputs.push(chunk.clone());
        Ok(PredictionEvent::Output { chunk, index })
    }

    /// Adds text to the log.
    pub fn push_log(
        &mut self,
        source: LogSource,
        data: &str,
    ) -> Result<PredictionEvent, TransitionError> {
        self.running("log")?;
        self.logs.push_str(data);
        Ok(PredictionEvent::Log { source, data: data.to_owned() })
    }

    /// Changes a metric; see [`Metrics::record`]. A prediction that does not run changes nothing.
    pub fn record_metric(
        &mut self,
        name: &str,
        value: Value,
        mode: MetricMode,
    ) -> Result<PredictionEvent, MetricError> {
        self.running("record a metric")?;
        self.metrics.record(name, value.clone(), mode)?;
        Ok(PredictionEvent::Metric { mode, name: name.to_owned(), value })
    }

    /// Ends well. `predict_time` is the run time in seconds.
    pub fn succeed(&mut self, predict_time: f64) -> Result<PredictionEvent, TransitionError> {
        self.running("succeed")?;
        Ok(self.end(Status::Succeeded, predict_time))
    }

    /// Ends with a fault, even before it runs.
    pub fn fail(
        &mut self,
        error: impl Into<String>,
        predict_time: f64,
    ) -> Result<PredictionEvent, TransitionError> {
        self.unfinished("fail")?;
        self.error = Some(error.into());
        Ok(self.end(Status::Failed, predict_time))
    }

    /// Ends because its caller wants no more, even before it runs.
    pub fn cancel(&mut self, predict_time: f64) -> Result<PredictionEvent, TransitionError> {
        self.unfinished("be canceled")?;
        Ok(self.end(Status::Canceled, predict_time))
    }

    fn running(&self, step: &'static str) -> Result<(), TransitionError> {
        if self.status == Status::Processing {
            Ok(())
        } else {
            Err(TransitionError { from: self.status, step })
        }
    }

    fn unfinished(&self, step: &'static str) -> Result<(), TransitionError> {
        if self.status.is_terminal() {
            Err(TransitionError { from: self.status, step })
        } else {
            Ok(())
        }
    }

    fn end(&mut self, status: Status, predict_time: f64) -> PredictionEvent {
        self.status = status;
        self.metrics.set_predict_time(predict_time);
        PredictionEvent::Completed { snapshot: self.snapshot() }
    }

    /// What webhooks and the `completed` event carry: `output` once there is any, `error` if it failed.
    pub fn snapshot(&self) -> Value {
        let mut fields = self.fields();
        if !self.outputs.is_empty() || self.status == Status::Succeeded {
            fields.insert("output".to_owned(), self.output());
        }
        sorted(Value::Object(fields))
    }

    /// What `PUT` of an id in flight answers: the snapshot and the input.
    pub fn in_flight(&self) -> Value {
        let mut snapshot = self.snapshot();
        if let Value::Object(fields) = &mut snapshot {
            fields.insert("input".to_owned(), self.input.clone());
        }
        sorted(snapshot)
    }

    /// What a synchronous request is answered with: `output` only if it succeeded. Unlike Cog's, the logs of one that
    /// failed or was canceled are in it.
    pub fn response(&self) -> Value {
        let mut fields = self.fields();
        if self.status == Status::Succeeded {
            fields.insert("output".to_owned(), self.output());
        }
        sorted(Value::Object(fields))
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = json!({"id": self.id, "logs": self.logs, "metrics": self.metrics.to_json(), "status": self.status});
        let Value::Object(mut fields) = fields else { return Map::new() };
        if let Some(error) = &self.error {
            fields.insert("error".to_owned(), Value::String(error.clone()));
        }
        fields
    }

    fn output(&self) -> Value {
        match self.shape {
            OutputShape::List => Value::Array(self.outputs.clone()),
            OutputShape::Single if self.outputs.len() > 1 => Value::Array(self.outputs.clone()),
            OutputShape::Single => self.outputs.first().cloned().unwrap_or(Value::Null),
        }
    }
}

impl Status {
    /// Whether it is one of the three ends.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl LogSource {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
