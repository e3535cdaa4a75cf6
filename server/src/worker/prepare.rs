//! From what a caller sent to tokens: templates and tokenizers run here, off every other thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use std::{io, iter};

use parking_lot::Mutex;
use pinion_engine::{
    Choice, Detokenizer, DetokenizerOptions, EngineHandle, PromptOutput, Request, SamplingParams,
    StopCriteria,
};
use pinion_loader::metadata::GenerationDefaults;
use pinion_loader::{ChatTemplate, PackageTokenizer, RenderInput};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Outbox;
use super::output::{Active, Echo, request_id, submit_error, undecodable};
use super::service::{Sequence, Sequences, cancelled};
use crate::ipc::{
    ErrorKind, Event, FinishReason, FromWorker, GenerationParams, Prompt, RequestKey, Resume,
    Submit, TokenizeInput, Tokenized, Usage, WorkerError,
};

/// Threads; one slow template leaves another for everybody else.
const THREADS: usize = 2;

/// Tokens of the prompt that decide how an echoed prompt goes on.
const ECHO_CONTEXT: usize = 8;

/// What preparing needs of a package.
pub(super) struct Prompts {
    pub(super) tokenizer: Arc<PackageTokenizer>,
    pub(super) template: Option<ChatTemplate>,
    pub(super) eos_token_ids: Vec<u32>,
    pub(super) defaults: GenerationDefaults,
    pub(super) max_model_len: usize,
    /// From where the engine's clock counts.
    pub(super) epoch: Instant,
}

/// Work for a preparer.
pub(super) enum Job {
    /// A generation, and when it arrived.
    Generate(Box<Submit>, Instant),
    Tokenize(RequestKey, TokenizeInput),
}

/// The threads and the queue in front of them, which the daemon's admission bounds.
pub(super) struct Preparers {
    jobs: Mutex<Sender<Job>>,
    started: Arc<[Mutex<Option<Instant>>; THREADS]>,
}

/// One preparing thread, and what it works with.
#[derive(Clone)]
pub(super) struct Preparer {
    pub(super) prompts: Arc<Prompts>,
    pub(super) engine: EngineHandle,
    pub(super) sequences: Sequences,
    pub(super) outbox: Outbox,
}

impl Preparers {
    /// Starts threads that are like `preparer`.
    pub(super) fn start(preparer: &Preparer) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
        let started: Arc<[Mutex<Option<Instant>>; THREADS]> = Arc::default();
        for index in 0..THREADS {
            let (queue, started) = (Arc::clone(&queue), Arc::clone(&started));
            let preparer = preparer.clone();
            let run = move || {
                // Whoever waits holds the lock: jobs go to one thread each.
                while let Ok(job) = { queue.lock().recv() } {
                    *started[index].lock() = Some(Instant::now());
                    preparer.run(job);
                    *started[index].lock() = None;
                }
            };
            std::thread::Builder::new().name(format!("prepare-{index}")).spawn(run)?;
        }
        Ok(Self { jobs: Mutex::new(jobs), started })
    }

    pub(super) fn push(&self, job: Job) {
        // The threads live as long as the process.
        let _ = self.jobs.lock().send(job);
    }

    /// Milliseconds that the longest running job has run.
    pub(super) fn oldest_millis(&self) -> u64 {
        let ages = self.started.iter().filter_map(|started| *started.lock());
        ages.map(|started| started.elapsed().as_millis() as u64).max().unwrap_or(0)
    }
}

impl Preparer {
    fn run(&self, job: Job) {
        match job {
            Job::Generate(submit, arrived) => self.generate(*submit, arrived),
            Job::Tokenize(key, input) => {
                let result = self.prompts.answer(input);
                self.outbox.send(&FromWorker::Tokens { key, result });
            }
        }
    }

    fn generate(&self, submit: Submit, arrived: Instant) {
        let keys: Vec<RequestKey> = submit.keys().collect();
        let events = match self.prompts.prepare(submit, arrived) {
            Ok((request, actives)) if is_only_echo(&request) => self.only_echo(request, actives),
            Ok((request, actives)) => self.hand_over(request, actives),
            Err(error) => self.refuse(&keys, &error),
        };
        if !events.is_empty() {
            let stats = super::output::stats(&self.engine.stats());
            self.outbox.send(&FromWorker::Step { events, stats });
        }
    }

    /// Gives the sequences to the engine and the output thread, and says what became of those that
    /// do not run. Under one lock, so that a cancel finds them before, or in the engine, and never
    /// between.
    fn hand_over(&self, mut request: Request, actives: Vec<Active>) -> Vec<(RequestKey, Event)> {
        let mut sequences = self.sequences.lock();
        let seeds = iter::once(request.sampling.seed).chain(request.choices.iter().map(|c| c.seed));
        let all: Vec<(Choice, Active)> =
            request.ids().zip(seeds).map(|(id, seed)| Choice { id, seed }).zip(actives).collect();
        let is_cancelled = |(choice, _): &(Choice, Active)| {
            matches!(sequences.get(&choice.id.0), Some(Sequence::Cancelled))
        };
        let (gone, wanted): (Vec<_>, Vec<_>) = all.into_iter().partition(is_cancelled);
        let mut events: Vec<(RequestKey, Event)> = Vec::new();
        for (choice, _) in gone {
            sequences.remove(&choice.id.0);
            events.push((choice.id.0, cancelled()));
        }
        let choices: Vec<Choice> = wanted.iter().map(|(choice, _)| *choice).collect();
        let Some((first, others)) = choices.split_first() else { return events };
        request.id = first.id;
        request.sampling.seed = first.seed;
        request.choices = others.to_vec();
        let submitted = self.engine.submit(request);
        for (choice, active) in wanted {
            let key = choice.id.0;
            if let Err(error) = &submitted {
                sequences.remove(&key);
                events.push((key, Event::Failed(submit_error(error))));
            } else {
                sequences.insert(key, Sequence::Active(Box::new(active)));
            }
        }
        events
    }

    fn refuse(&self, keys: &[RequestKey], error: &WorkerError) -> Vec<(RequestKey, Event)> {
        let mut sequences = self.sequences.lock();
        keys.iter().for_each(|key| drop(sequences.remove(key)));
        keys.iter().map(|&key| (key, Event::Failed(error.clone()))).collect()
    }

    /// Answers a request for no tokens, for which the engine has nothing to do.
    fn only_echo(&self, mut request: Request, actives: Vec<Active>) -> Vec<(RequestKey, Event)> {
        let keys: Vec<RequestKey> = request.ids().map(|id| id.0).collect();
        request.stop = StopCriteria::length(1);
        if let Err(error) = self.engine.limits().check(&request) {
            return self.refuse(&keys, &submit_error(&error));
        }
        let (mut sequences, mut events) = (self.sequences.lock(), Vec::new());
        for (key, mut active) in keys.into_iter().zip(actives) {
            sequences.remove(&key);
            active.begin(key, &PromptOutput::default(), &mut events);
            let (reason, usage) = (FinishReason::Length, active.usage);
            events.push((key, Event::Finished { reason, usage }));
        }
        events
    }
}

/// Whether the engine has nothing to do.
fn is_only_echo(request: &Request) -> bool {
    request.stop.max_tokens == 0 && request.prompt_logprobs.is_none()
}

impl Prompts {
    fn prepare(
        &self,
        submit: Submit,
        arrived: Instant,
    ) -> Result<(Request, Vec<Active>), WorkerError> {
        let Submit { key, prompt, params, unix_seconds, resume, choices } = submit;
        let mut echo = match &prompt {
            Prompt::Text(text) if params.echo => Some(text.clone()),
            _ => None,
        };
        let prompt = self.tokens(prompt, unix_seconds)?;
        if params.echo && echo.is_none() {
            echo = Some(self.tokenizer.decode(&prompt, false).map_err(tokenizer_error)?);
        }
        let room = self.max_model_len.saturating_sub(prompt.len());
        let max_tokens = params.max_tokens.map_or(room, |max| max as usize);
        let echo = echo.zip(prompt.first()).map(|(text, &first)| Arc::new(Echo::new(text, first)));
        let actives = (0..=choices.len())
            .map(|_| self.active(&params, &prompt, (echo.clone(), resume.as_ref())))
            .collect::<Result<Vec<_>, _>>()?;
        let prompt_logprobs = params.logprobs.filter(|_| params.echo && resume.is_none());
        let generated = resume.map(|resume| resume.token_ids).unwrap_or_default();
        let request = Request {
            id: request_id(key),
            prompt,
            generated,
            stop: StopCriteria {
                max_tokens: max_tokens.min(room.max(1)),
                min_tokens: params.min_tokens as usize,
                eos_token_ids: self.eos_token_ids.clone(),
                stop_token_ids: params.stop_token_ids.clone(),
                ignore_eos: params.ignore_eos,
            },
            class: params.urgency.class,
            deadline: self.deadline(&params, arrived),
            adapter: 0,
            cache_salt: salt(params.cache_salt),
            logprobs: params.logprobs.map(|n| n as usize),
            prompt_logprobs: prompt_logprobs.map(|n| n as usize),
            num_draft_tokens: params.speculative_tokens.map(|count| count as usize),
            choices: choices
                .into_iter()
                .map(|(key, seed)| Choice { id: request_id(key), seed })
                .collect(),
            sampling: self.sampling(params),
        };
        Ok((request, actives))
    }

    /// What the output thread needs for one answer to `prompt`. What was delivered before is not
    /// delivered again.
    fn active(
        &self,
        params: &GenerationParams,
        prompt: &[u32],
        (echo, resume): (Option<Arc<Echo>>, Option<&Resume>),
    ) -> Result<Active, WorkerError> {
        let options = DetokenizerOptions {
            stop: params.stop.clone(),
            include_stop: params.include_stop,
            min_tokens: params.min_tokens as usize,
            skip_special_tokens: !params.keep_special_tokens,
        };
        // Text that follows the prompt's may begin with a space, text that stands alone may not.
        let num_context = if echo.is_some() { ECHO_CONTEXT } else { 0 };
        let context = &prompt[prompt.len().saturating_sub(num_context)..];
        let mut detokenizer =
            Detokenizer::new(self.tokenizer.shared(), context, options).map_err(undecodable)?;
        let generated = resume.map_or(&[][..], |resume| &resume.token_ids);
        for &token in generated {
            let _delivered = detokenizer.push(token).map_err(undecodable)?;
        }
        Ok(Active {
            detokenizer,
            tokenizer: Arc::clone(&self.tokenizer),
            wants_logprobs: params.logprobs.is_some(),
            usage: Usage {
                prompt_tokens: prompt.len() as u32,
                cached_tokens: resume.map_or(0, |resume| resume.cached_tokens),
                completion_tokens: generated.len() as u32,
            },
            started: resume.is_some(),
            echo: echo.filter(|_| resume.is_none()),
        })
    }

    /// On the engine's clock.
    fn deadline(&self, params: &GenerationParams, arrived: Instant) -> Option<Duration> {
        let left = Duration::from_millis(params.urgency.deadline_millis?);
        Some(arrived.duration_since(self.epoch).saturating_add(left))
    }

    fn sampling(&self, params: GenerationParams) -> SamplingParams {
        let defaults = &self.defaults;
        SamplingParams {
            temperature: params.temperature.or(defaults.temperature).unwrap_or(1.0),
            top_p: params.top_p.or(defaults.top_p).unwrap_or(1.0),
            top_k: params.top_k.or(defaults.top_k).filter(|k| *k != 0).map(|k| k as usize),
            min_p: params.min_p,
            seed: params.seed,
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            logit_bias: params.logit_bias,
            processed_logprobs: params.processed_logprobs,
        }
    }

    fn answer(&self, input: TokenizeInput) -> Result<Tokenized, WorkerError> {
        match input {
            TokenizeInput::Prompt(prompt) => {
                let now = jiff::Timestamp::now().as_second();
                Ok(Tokenized::Ids(self.tokens(prompt, now)?))
            }
            TokenizeInput::Detokenize(ids) => {
                Ok(Tokenized::Text(self.tokenizer.decode(&ids, false).map_err(tokenizer_error)?))
            }
        }
    }

    fn tokens(&self, prompt: Prompt, unix_seconds: i64) -> Result<Vec<u32>, WorkerError> {
        match prompt {
            Prompt::Tokens(ids) => Ok(ids),
            Prompt::Text(text) => self.tokenizer.encode_prompt(&text).map_err(tokenizer_error),
            Prompt::Chat { messages, tools, template_kwargs, plain_fallback } => self
                .chat_text(
                    (&messages, tools.as_deref(), template_kwargs.as_deref()),
                    plain_fallback,
                    unix_seconds,
                )
                .and_then(|text| match &self.template {
                    Some(_) => self.tokenizer.encode_chat(&text).map_err(tokenizer_error),
                    None => self.tokenizer.encode_prompt(&text).map_err(tokenizer_error),
                }),
        }
    }

    /// The text that the template makes of a chat; without one, the texts of the messages.
    fn chat_text(
        &self,
        (messages, tools, template_kwargs): (&str, Option<&str>, Option<&str>),
        plain_fallback: bool,
        unix_seconds: i64,
    ) -> Result<String, WorkerError> {
        let messages: Value = json("messages", messages)?;
        let Some(template) = &self.template else {
            return if plain_fallback { Ok(plain_text(&messages)) } else { Err(no_template()) };
        };
        let tools: Option<Value> = tools.map(|tools| json("tools", tools)).transpose()?;
        let extra: Option<Map<String, Value>> =
            template_kwargs.map(|kwargs| json("chat_template_kwargs", kwargs)).transpose()?;
        let input = RenderInput {
            messages: &messages,
            tools: tools.as_ref(),
            extra: extra.as_ref(),
            add_generation_prompt: true,
            unix_seconds,
        };
        template.render(&input).map_err(|error| WorkerError {
            kind: if error.is_callers() { ErrorKind::InvalidRequest } else { ErrorKind::Package },
            code: error.code().to_owned(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            param: Some("messages".to_owned()),
        })
    }
}

fn salt([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn json<T: DeserializeOwned>(param: &str, text: &str) -> Result<T, WorkerError> {
    serde_json::from_str(text).map_err(|error| WorkerError {
        kind: ErrorKind::InvalidRequest,
        code: "invalid_value".to_owned(),
        message: format!("`{param}` does not read: {error}"),
        hint: None,
        param: Some(param.to_owned()),
    })
}

/// The texts of the messages, one a line: what a model without a template is given.
fn plain_text(messages: &Value) -> String {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> =
        messages.iter().filter_map(|message| message.get("content")?.as_str()).collect();
    texts.join("\n")
}

fn no_template() -> WorkerError {
    WorkerError {
        kind: ErrorKind::InvalidRequest,
        code: "no_chat_template".to_owned(),
        message: "the package has no chat template".to_owned(),
        hint: Some("use /v1/completions, or give the package a chat template".to_owned()),
        param: Some("messages".to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn tokenizer_error(error: pinion_loader::TokenizerError) -> WorkerError {
    super::package_error(error.code(), error.to_string(), error.hint())
}
