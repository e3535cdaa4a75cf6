//! From tokens to events: one frame a step.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{io, iter};

use pinion_engine::{
    Detokenizer, EngineHandle, EngineStats, PromptOutput, RequestId, RouteClass, SampledToken,
    SequenceError, SequenceOutput, StepOutput, SubmitError,
};
use pinion_loader::PackageTokenizer;
use tokio::sync::mpsc::Receiver;

use super::Outbox;
use super::service::{Sequence, Sequences};
use crate::ipc::{
    ErrorKind, Event, FinishReason, FromWorker, RequestKey, Stats, TokenLogprob, Usage, WorkerError,
};

/// What the output thread keeps of a sequence that runs.
pub(super) struct Active {
    pub(super) detokenizer: Detokenizer,
    pub(super) tokenizer: Arc<PackageTokenizer>,
    pub(super) wants_logprobs: bool,
    pub(super) usage: Usage,
    pub(super) started: bool,
    /// What the answer begins with, if it is the prompt.
    pub(super) echo: Option<Arc<Echo>>,
}

/// A prompt that is part of the answers to it.
pub(super) struct Echo {
    text: String,
    first_token: u32,
    /// Those of its tokens; the first answer that begins has them.
    logprobs: OnceLock<Vec<TokenLogprob>>,
}

impl Echo {
    /// Of a prompt with that text and first token.
    pub(super) fn new(text: String, first_token: u32) -> Self {
        Self { text, first_token, logprobs: OnceLock::new() }
    }
}

/// Starts the thread that renders what the engine puts out.
pub(super) fn start(
    mut outputs: Receiver<StepOutput>,
    engine: EngineHandle,
    sequences: Sequences,
    outbox: Outbox,
) -> io::Result<()> {
    let run = move || {
        while let Some(step) = outputs.blocking_recv() {
            let mut events = Vec::with_capacity(step.outputs.len());
            let mut running = sequences.lock();
            for output in step.outputs {
                let key = output.id.0;
                let Some(Sequence::Active(active)) = running.get_mut(&key) else { continue };
                let last = active.render(&output, &mut events, &engine);
                if last {
                    running.remove(&key);
                }
            }
            drop(running);
            outbox.send(&FromWorker::Step { events, stats: stats(&step.stats) });
        }
        tracing::error!("the engine has ended");
        outbox.close();
    };
    std::thread::Builder::new().name("output".to_owned()).spawn(run).map(drop)
}

impl Active {
    /// Appends the events of a sequence that runs for the first time.
    pub(super) fn begin(
        &mut self,
        key: RequestKey,
        prompt: &PromptOutput,
        events: &mut Vec<(RequestKey, Event)>,
    ) {
        let cached_tokens = prompt.num_cached_tokens as u32;
        self.started = true;
        self.usage.cached_tokens = cached_tokens;
        let prompt_tokens = self.usage.prompt_tokens;
        events.push((key, Event::Started { prompt_tokens, cached_tokens }));
        if let Some(echo) = self.echo.take() {
            let first = SampledToken { id: echo.first_token, logprob: None, top: Vec::new() };
            let all = || iter::once(&first).chain(&prompt.logprobs).map(|one| self.logprob(one));
            let logprobs = if self.wants_logprobs {
                echo.logprobs.get_or_init(|| all().collect()).clone()
            } else {
                Vec::new()
            };
            let (text, token_ids) = (echo.text.clone(), Vec::new());
            events.push((key, Event::Delta { text, token_ids, logprobs }));
        }
    }

    /// Appends the events of one output; true after the final one.
    fn render(
        &mut self,
        output: &SequenceOutput,
        events: &mut Vec<(RequestKey, Event)>,
        engine: &EngineHandle,
    ) -> bool {
        let key = output.id.0;
        if let Some(prompt) = &output.prompt
            && !self.started
        {
            self.begin(key, prompt, events);
        }
        let result = self.render_token(output, engine);
        let (text, token_ids, logprobs, reason) = match result {
            Ok(rendered) => rendered,
            Err(error) => {
                engine.abort(output.id);
                events.push((key, Event::Failed(error)));
                return true;
            }
        };
        if !token_ids.is_empty() || !text.is_empty() {
            events.push((key, Event::Delta { text, token_ids, logprobs }));
        }
        if let Some(reason) = reason {
            events.push((key, Event::Finished { reason, usage: self.usage }));
        }
        reason.is_some()
    }

    /// Text, tokens and log probabilities of an output, and why the sequence ended with it.
    #[expect(clippy::type_complexity, reason = "the four parts of one event, used once")]
    fn render_token(
        &mut self,
        output: &SequenceOutput,
        engine: &EngineHandle,
    ) -> Result<(String, Vec<u32>, Vec<TokenLogprob>, Option<FinishReason>), WorkerError> {
        use pinion_engine::FinishReason as Engine;
        let (mut text, mut ids, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        if let Some(token) = &output.token {
            self.usage.completion_tokens += 1;
            ids.push(token.id);
            if self.wants_logprobs {
                logprobs.push(self.logprob(token));
            }
            if output.finish != Some(Engine::Stop) {
                let delta = self.detokenizer.push(token.id).map_err(undecodable)?;
                text = delta.text;
                if delta.stop.is_some() {
                    engine.abort(output.id);
                    return Ok((text, ids, logprobs, Some(FinishReason::Stop)));
                }
            }
        }
        let mut reason = match &output.finish {
            None => return Ok((text, ids, logprobs, None)),
            Some(Engine::Stop) => FinishReason::Stop,
            Some(Engine::Length) => FinishReason::Length,
            Some(Engine::Aborted) => FinishReason::Cancelled,
            Some(Engine::Error(error)) => return Err(sequence_error(error)),
        };
        let rest = self.detokenizer.finish().map_err(undecodable)?;
        text.push_str(&rest.text);
        if rest.stop.is_some() {
            reason = FinishReason::Stop;
        }
        Ok((text, ids, logprobs, Some(reason)))
    }

    fn logprob(&self, token: &SampledToken) -> TokenLogprob {
        let piece = |id: u32| {
            let text = self.tokenizer.decode(&[id], false).unwrap_or_default();
            // A part of a character has no text of its own.
            let bytes =
                if text.contains('\u{fffd}') { Vec::new() } else { text.clone().into_bytes() };
            (text, bytes)
        };
        let (text, bytes) = piece(token.id);
        let top = token.top.iter().map(|one| {
            let (text, bytes) = piece(one.id);
            (text, bytes, one.logprob)
        });
        TokenLogprob { token: text, logprob: token.logprob, bytes, top: top.collect() }
    }
}

/// The engine's refusal as a caller should read it.
pub(super) fn submit_error(error: &SubmitError) -> WorkerError {
    let later = |time: Duration| ErrorKind::Later { millis: time.as_millis() as u64 };
    let (kind, code, param) = match error {
        SubmitError::Param(param) => {
            (ErrorKind::InvalidRequest, "invalid_value", Some(param.field.to_owned()))
        }
        SubmitError::EmptyPrompt => (ErrorKind::InvalidRequest, "empty_prompt", None),
        SubmitError::PromptTooLong { .. } | SubmitError::NeverFits { .. } => {
            (ErrorKind::InvalidRequest, "context_length_exceeded", None)
        }
        SubmitError::QueueFull { retry_after, .. } => {
            (retry_after.map_or(ErrorKind::Overloaded, later), "queue_full", None)
        }
        SubmitError::DeadlineUnmeetable { needed, left } => {
            (later(needed.saturating_sub(*left)), "deadline_unmeetable", None)
        }
        SubmitError::DuplicateId(_) | SubmitError::Stopped => {
            (ErrorKind::Internal, "engine_stopped", None)
        }
    };
    WorkerError { kind, code: code.to_owned(), message: error.to_string(), hint: None, param }
}

fn sequence_error(error: &SequenceError) -> WorkerError {
    let (kind, code) = match error {
        SequenceError::NonFiniteLogits { .. } => (ErrorKind::Package, "non_finite_logits"),
        SequenceError::StepFailed { .. } => (ErrorKind::Internal, "step_failed"),
        SequenceError::DeadlineExceeded { .. } => (ErrorKind::Overloaded, "deadline_exceeded"),
        SequenceError::Refused(refusal) => return submit_error(refusal),
    };
    let message = error.to_string();
    WorkerError { kind, code: code.to_owned(), message, hint: None, param: None }
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
pub(super) fn undecodable(error: pinion_engine::DecodeError) -> WorkerError {
    super::package_error("tokenizer_failed", error.to_string(), None)
}

pub(super) fn stats(engine: &EngineStats) -> Stats {
    Stats {
        running: engine.running as u32,
        waiting: engine.waiting as u32,
        class_running: RouteClass::ALL.map(|class| engine.classes[class].running as u32),
        class_waiting: RouteClass::ALL.map(|class| engine.classes[class].waiting as u32),
        blocks_total: engine.blocks_total as u32,
        blocks_free: engine.blocks_free as u32,
        num_preemptions: engine.num_preemptions,
        prefix_queries: engine.prefix_queries,
        prefix_hits: engine.prefix_hits,
        steps: engine.steps,
        prompt_tokens: engine.prompt_tokens,
        generation_tokens: engine.generation_tokens,
        draft_tokens: engine.draft_tokens,
        accepted_draft_tokens: engine.accepted_draft_tokens,
    }
}

/// The engine's name of a request.
pub(super) fn request_id(key: RequestKey) -> RequestId {
    RequestId(key)
}
