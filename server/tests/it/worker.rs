//! A worker that does what the prompt says, so that tests decide what happens when.
//!
//! The test binary is its own worker: the daemon starts a script that runs it with `MARK` set and
//! this module's test selected.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use pinion_server::ipc::{
    ErrorKind, Event, FinishReason, FromWorker, GenerationParams, LoadRequest, ModelInfo,
    PROTOCOL_VERSION, Prompt, RequestKey, Resume, Stats, Submit, ToWorker, TokenLogprob,
    TokenizeInput, Tokenized, Usage, WorkerError, read_frame, write_frame,
};
use serde_json::Value;

/// Set in the environment of a worker.
pub(crate) const MARK: &str = "PINION_SCRIPTED_WORKER";

#[test]
fn a_test_process_that_is_marked_serves_as_a_worker() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("standard input is open");
    Worker { socket: socket.into(), waiting: HashMap::new(), cancelled: 0 }.run();
}

struct Worker {
    socket: UnixStream,
    /// Generations that go on when their gate is opened, by gate.
    waiting: HashMap<RequestKey, (String, Vec<Event>)>,
    cancelled: u32,
}

impl Worker {
    fn run(mut self) {
        self.send(&FromWorker::Hello { protocol: PROTOCOL_VERSION });
        while let Ok(message) = read_frame(&self.socket) {
            match message {
                ToWorker::Load(load) => self.load(&load),
                ToWorker::Submit(submit) => self.submit(*submit),
                ToWorker::Cancel(key) => {
                    if self.waiting.remove(&key).is_some() {
                        self.cancelled += 1;
                        self.step(key, [finished(FinishReason::Cancelled, 0)]);
                    }
                }
                ToWorker::Tokenize { key, input } => {
                    let result = self.tokenize(input);
                    self.send(&FromWorker::Tokens { key, result });
                }
                ToWorker::Ping { nonce } => {
                    self.send(&FromWorker::Pong { nonce, step_millis: 0, render_millis: 0 });
                }
                ToWorker::WriteSnapshot { .. } => {}
                ToWorker::Shutdown => return,
            }
        }
    }

    fn load(&mut self, load: &LoadRequest) {
        match load.device.as_str() {
            "broken" => {
                self.send(&FromWorker::LoadFailed(error("bad_weights", ErrorKind::Package)));
            }
            "slow" => {}
            _ => self.send(&FromWorker::Ready(Box::new(info()))),
        }
    }

    fn submit(&mut self, submit: Submit) {
        for submit in submit.split() {
            self.answer(submit);
        }
    }

    fn answer(&mut self, submit: Submit) {
        let Submit { key, prompt, params, resume, .. } = submit;
        let text = text_of(&prompt);
        let (command, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let started = Event::Started { prompt_tokens: 5, cached_tokens: 2 };
        let first = delta(&params, 1, "first");
        match command {
            "count" => {
                let words: Vec<String> = (1..=rest.parse().unwrap_or(3))
                    .map(|n: u32| if n == 1 { "1".to_owned() } else { format!(" {n}") })
                    .collect();
                self.play(key, started, &params, &words);
            }
            "say" => {
                let letters: Vec<char> = rest.chars().collect();
                let words: Vec<String> =
                    letters.chunks(5).map(|part| part.iter().collect()).collect();
                self.play(key, started, &params, &words);
            }
            "show" => {
                let seen = serde_json::to_string(&(&prompt, &params)).expect("plain data");
                self.play(key, started, &params, &[seen]);
            }
            "wait" => {
                self.step(key, [started, first]);
                let rest_of_it =
                    vec![delta(&params, 2, " second"), finished(FinishReason::Stop, 2)];
                self.waiting.insert(key, (rest.to_owned(), rest_of_it));
            }
            "queue" => {
                self.waiting.insert(key, (rest.to_owned(), Vec::new()));
            }
            "open" => {
                self.play(key, started, &params, &["open".to_owned()]);
                self.open(rest);
            }
            "crash" => std::process::abort(),
            "crash-late" => {
                if let Some(resume) = resume {
                    assert_eq!(resume, Resume { token_ids: vec![1], cached_tokens: 2 });
                    let second = delta(&params, 2, " second");
                    return self.step(key, [second, finished(FinishReason::Stop, 2)]);
                }
                self.step(key, [started, first]);
                std::process::abort();
            }
            "die-alone" => {
                assert!(resume.is_none(), "it was cancelled");
                self.step(key, [started, first]);
                std::process::abort();
            }
            "fail" => self.step(key, [Event::Failed(error(rest, ErrorKind::InvalidRequest))]),
            "fail-beside" => {
                let gates: Vec<RequestKey> = self.waiting.drain().map(|(key, _)| key).collect();
                let failed = Event::Failed(error(rest, ErrorKind::InvalidRequest));
                let mut events: Vec<(RequestKey, Event)> =
                    gates.into_iter().map(|key| (key, first.clone())).collect();
                events.push((key, failed));
                self.send(&FromWorker::Step { events, stats: Stats::default() });
            }
            "full" => self.step(key, [Event::Failed(error("queue_full", ErrorKind::Overloaded))]),
            "fail-late" => {
                let failed = Event::Failed(error("nan_logits", ErrorKind::Internal));
                self.step(key, [started, first, failed]);
            }
            "stall" => loop {
                std::thread::park();
            },
            _ => self.play(key, started, &params, &[format!("what is {command}?")]),
        }
    }

    /// Lets what waits at a gate go on.
    fn open(&mut self, name: &str) {
        let gates = std::mem::take(&mut self.waiting);
        let (opened, closed) = gates.into_iter().partition(|(_, (gate, _))| gate == name);
        self.waiting = closed;
        for (key, (_, events)) in opened {
            self.step(key, events);
        }
    }

    /// Generates a token a word, up to the limit.
    fn play(
        &mut self,
        key: RequestKey,
        started: Event,
        params: &GenerationParams,
        words: &[String],
    ) {
        let most = params.max_tokens.map_or(usize::MAX, |most| most as usize);
        let mut events = vec![started];
        for (index, word) in words.iter().enumerate().take(most) {
            events.push(delta(params, index as u32 + 1, word));
        }
        let reason = if words.len() <= most { FinishReason::Stop } else { FinishReason::Length };
        events.push(finished(reason, words.len().min(most) as u32));
        self.step(key, events);
    }

    fn step(&self, key: RequestKey, events: impl IntoIterator<Item = Event>) {
        let events = events.into_iter().map(|event| (key, event)).collect();
        let running = self.waiting.len() as u32;
        let class_waiting = [0, 0, 2, 0];
        let stats =
            Stats { running, class_waiting, blocks_total: 8, blocks_free: 6, ..Stats::default() };
        self.send(&FromWorker::Step { events, stats });
    }

    /// Tokens are the letters' code points; `cancelled` asks how many generations were.
    fn tokenize(&self, input: TokenizeInput) -> Result<Tokenized, WorkerError> {
        match input {
            TokenizeInput::Prompt(prompt) => match text_of(&prompt).as_str() {
                "cancelled" => Ok(Tokenized::Ids(vec![self.cancelled])),
                text => Ok(Tokenized::Ids(text.chars().map(u32::from).collect())),
            },
            TokenizeInput::Detokenize(ids) => {
                let text = ids.into_iter().map(char::from_u32).collect::<Option<String>>();
                text.map(Tokenized::Text)
                    .ok_or_else(|| error("unknown_token", ErrorKind::InvalidRequest))
            }
        }
    }

    fn send(&self, message: &FromWorker) {
        // A daemon that is gone ends the loop at the next read.
        let _ = write_frame(&self.socket, message);
    }
}

fn text_of(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => format!("show {ids:?}"),
        Prompt::Chat { messages, .. } => {
            let messages: Vec<Value> = serde_json::from_str(messages).expect("messages are JSON");
            let last = messages.last().expect("there is a message");
            last["content"].as_str().unwrap_or_default().to_owned()
        }
    }
}

fn delta(params: &GenerationParams, id: u32, text: &str) -> Event {
    let logprobs = params.logprobs.map(|top| TokenLogprob {
        token: text.to_owned(),
        logprob: Some(-0.5),
        bytes: text.as_bytes().to_vec(),
        top: [(text, -0.5), ("x", f32::NEG_INFINITY)]
            .into_iter()
            .take(top as usize)
            .map(|(text, logprob)| (text.to_owned(), text.as_bytes().to_vec(), logprob))
            .collect(),
    });
    Event::Delta {
        text: text.to_owned(),
        token_ids: vec![id],
        logprobs: logprobs.into_iter().collect(),
    }
}

fn finished(reason: FinishReason, completion_tokens: u32) -> Event {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 2, completion_tokens };
    Event::Finished { reason, usage }
}

fn error(code: &str, kind: ErrorKind) -> WorkerError {
    WorkerError {
        kind,
        code: code.to_owned(),
        message: format!("as the script says: {code}"),
        hint: Some("read the script".to_owned()),
        param: Some("messages".to_owned()),
    }
}

fn info() -> ModelInfo {
    ModelInfo {
        architecture: "ScriptedForCausalLM".to_owned(),
        dtype: "f32".to_owned(),
        device: "script".to_owned(),
        num_parameters: 0,
        weight_bytes: 0,
        max_model_len: 512,
        max_num_seqs: 4,
        block_size: 16,
        num_blocks: 8,
        vocab_size: 256,
        has_chat_template: true,
        load_millis: 0,
        temperature: None,
        top_p: None,
        top_k: None,
        identity: "scripted".to_owned(),
        warnings: Vec::new(),
    }
}
