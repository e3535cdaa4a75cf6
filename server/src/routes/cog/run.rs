//! Runs one prediction: events of the worker become its steps.

use std::sync::Arc;

use pinion_cog_compat::prediction::{MetricMode, Refusal, Status};
use tokio::time::Instant;

use super::prediction::{Prediction, Progress};
use super::service::Service;
use crate::ipc::{ErrorKind, Event, FinishReason, Usage, WorkerError};
use crate::supervisor::Generation;

/// What a prediction does.
#[derive(Debug)]
pub(super) enum Work {
    /// Generates.
    Generate(Generation),
    /// Fails, because its inputs are wrong together.
    Fail(String),
}

/// How a generation ended.
enum End {
    Finished(FinishReason, Usage),
    Failed(WorkerError),
}

/// Runs a prediction to its end.
pub(super) async fn run(service: Arc<Service>, prediction: Arc<Prediction>, work: Work) {
    let started = Instant::now();
    let end = match work {
        Work::Generate(generation) => generate(&prediction, generation, started).await,
        Work::Fail(message) => {
            prediction.advance(begin);
            End::Failed(input_error(message))
        }
    };
    // Who hears of the end finds room.
    service.predictions.end(&prediction, |progress| {
        last_step(progress, end, started.elapsed().as_secs_f64());
    });
}

/// Takes the generation, and with it the place, so that both are gone when the end is known.
async fn generate(prediction: &Prediction, generation: Generation, started: Instant) -> End {
    let mut events = generation.events();
    let mut cancelling = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = prediction.cancelled(), if !cancelling => {
                cancelling = true;
                generation.cancel();
                continue;
            }
        };
        match event {
            Some(Event::Started { prompt_tokens, .. }) => prediction.advance(|progress| {
                begin(progress);
                metric(progress, "input_token_count", prompt_tokens.into());
            }),
            Some(Event::Delta { text, token_ids, .. }) => prediction.advance(|progress| {
                let seconds = started.elapsed().as_secs_f64();
                delta(progress, text, token_ids.len(), seconds);
            }),
            Some(Event::Finished { reason, usage }) => return End::Finished(reason, usage),
            Some(Event::Failed(error)) => return End::Failed(error),
            None => return End::Failed(gone()),
        }
    }
}

fn begin(progress: &mut Progress) {
    if progress.state.status() == Status::Starting {
        let step = progress.state.start();
        progress.push(step);
    }
}

fn metric(progress: &mut Progress, name: &str, value: serde_json::Value) {
    let step = progress.state.record_metric(name, value, MetricMode::Replace);
    progress.push(step);
}

fn delta(progress: &mut Progress, text: String, tokens: usize, seconds: f64) {
    begin(progress);
    let first = progress.state.metrics().get("output_token_count").is_none();
    // Snapshots count along; the stream has the count at its end, and an output a chunk until then.
    let counted =
        progress.state.record_metric("output_token_count", tokens.into(), MetricMode::Increment);
    if let Err(error) = counted {
        tracing::error!(id = progress.state.id(), "{error}");
    }
    if first {
        metric(progress, "time_to_first_token", seconds.into());
    }
    if !text.is_empty() {
        let step = progress.state.push_output(text.into());
        progress.push(step);
    }
}

fn last_step(progress: &mut Progress, end: End, seconds: f64) {
    let step = match end {
        End::Finished(FinishReason::Cancelled, _) => progress.state.cancel(seconds),
        End::Finished(FinishReason::Stop | FinishReason::Length, usage) => {
            begin(progress);
            metric(progress, "output_token_count", usage.completion_tokens.into());
            progress.state.succeed(seconds)
        }
        End::Failed(error) => {
            if progress.state.status() == Status::Starting {
                progress.refusal = refusal(&error);
            }
            progress.state.fail(describe(error), seconds)
        }
    };
    progress.push(step);
}

/// The refusal that a failure before the first step amounts to.
fn refusal(error: &WorkerError) -> Option<Refusal> {
    match (error.kind, &*error.code) {
        (_, "model_loading" | "model_failed" | "draining" | "worker_unresponsive") => {
            Some(Refusal::NotReady)
        }
        (ErrorKind::Overloaded | ErrorKind::Later { .. }, _) => Some(Refusal::AtCapacity),
        _ => None,
    }
}

fn describe(error: WorkerError) -> String {
    match error.hint {
        Some(hint) => format!("{}; hint: {hint}", error.message),
        None => error.message,
    }
}

fn input_error(message: String) -> WorkerError {
    let code = "invalid_input".to_owned();
    WorkerError { kind: ErrorKind::InvalidRequest, code, message, hint: None, param: None }
}

fn gone() -> WorkerError {
    WorkerError::internal("worker_gone", "the worker of the package is gone")
}
