//! Streamed answers, as bytes: what is constant is written once and copied from there.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use super::choice::{HeldLogprobs, Meta, Splitter, call_id};
use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::usage::UsageCount;
use super::{GenerateRequest, Kind, StreamOptions, error_body};
use crate::error::ApiError;
use crate::ipc::Event;
use crate::tool_parser::Piece;

/// Turns the events of all choices into server-sent events.
pub(crate) struct ChunkWriter {
    meta: Meta,
    kind: Kind,
    options: StreamOptions,
    /// Every event's `id:` line up to its number.
    event_id: String,
    /// Every chunk up to the list of choices.
    head: String,
    /// Number of the next event.
    next: u64,
    /// Number of the first event that is wanted.
    from: u64,
    choices: Vec<Choice>,
    usage: UsageCount,
    /// Reported once, in the first chunk.
    seed: Option<u64>,
    out: BytesMut,
}

struct Choice {
    splitter: Splitter,
    logprobs: HeldLogprobs,
    begun: bool,
    calls: usize,
}

/// What a chunk adds to its choice.
enum Delta<'a> {
    Role,
    Text(&'a str),
    CallName { call: usize, name: &'a str },
    CallArguments { call: usize, arguments: &'a str },
    Nothing,
}

impl ChunkWriter {
    /// A writer for the answer to a request. It numbers the events, and leaves out those before
    /// `from`: what it writes depends on nothing else, so a reader that comes back finds the same.
    pub(crate) fn new(meta: Meta, request: &GenerateRequest, from: u64) -> Self {
        let object = match request.kind {
            Kind::Chat { .. } => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let head = format!(
            r#"data: {{"id":{},"object":"{object}","created":{},"model":{},"choices":["#,
            quoted(&meta.id),
            meta.created,
            quoted(&meta.model),
        );
        Self {
            seed: Some(meta.seed),
            event_id: format!("id: {}:", meta.id),
            meta,
            kind: request.kind,
            options: request.stream.unwrap_or_default(),
            head,
            next: 0,
            from,
            choices: (0..request.choices).map(|_| Choice::new(request.kind)).collect(),
            usage: UsageCount::new(request.choices, request.n),
            out: BytesMut::new(),
        }
    }

    /// Writes what an event of a choice means.
    pub(crate) fn event(&mut self, index: usize, event: Event) -> Result<(), ApiError> {
        self.usage.observe(index, &event);
        match event {
            Event::Started { .. } => {}
            Event::Delta { text, logprobs, .. } => {
                self.begin(index);
                let choice = &mut self.choices[index];
                choice.logprobs.extend(logprobs);
                let pieces = choice.splitter.push(text);
                self.pieces(index, pieces);
            }
            Event::Finished { reason, .. } => {
                let pieces = self.choices[index].splitter.finish();
                let reason = self.choices[index].splitter.finish_reason(reason)?;
                self.begin(index);
                self.pieces(index, pieces);
                self.chunk(index, &Delta::Nothing, Some(reason));
            }
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes the end of a stream whose choices are all finished.
    pub(crate) fn end(&mut self) {
        if self.options.include_usage {
            self.numbered(|this| {
                this.out.put_slice(this.head.as_bytes());
                this.out.put_slice(b"],\"usage\":");
                write_json(&mut this.out, &this.usage.body());
                this.out.put_slice(b"}");
            });
        }
        self.numbered(|this| this.out.put_slice(b"data: [DONE]"));
    }

    /// Writes the end of a stream that cannot go on.
    pub(crate) fn fail(&mut self, error: &ApiError) {
        self.numbered(|this| {
            this.out.put_slice(b"data: ");
            this.out.put_slice(error_body(error).as_bytes());
        });
    }

    /// Number of the event that would be written next.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Bytes written and not yet taken.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes what was written.
    pub(crate) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    fn begin(&mut self, index: usize) {
        let begun = std::mem::replace(&mut self.choices[index].begun, true);
        if !begun && self.kind != Kind::Completion {
            self.chunk(index, &Delta::Role, None);
        }
    }

    fn pieces(&mut self, index: usize, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.chunk(index, &Delta::Text(&text), None),
                Piece::Call { name, arguments } => {
                    let call = self.choices[index].calls;
                    self.choices[index].calls += 1;
                    self.chunk(index, &Delta::CallName { call, name: &name }, None);
                    let arguments = &arguments;
                    self.chunk(index, &Delta::CallArguments { call, arguments }, None);
                }
            }
        }
    }

    /// Writes one event, if it is wanted.
    fn numbered(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.out.put_slice(self.event_id.as_bytes());
        put(&mut self.out, format_args!("{}\n", self.next));
        write(self);
        self.out.put_slice(b"\n\n");
        if self.next < self.from {
            self.out.truncate(start);
        }
        self.next += 1;
    }

    fn chunk(&mut self, index: usize, delta: &Delta<'_>, finish: Option<&str>) {
        self.numbered(|this| this.write_chunk(index, delta, finish));
    }

    fn write_chunk(&mut self, index: usize, delta: &Delta<'_>, finish: Option<&str>) {
        self.out.put_slice(self.head.as_bytes());
        put(&mut self.out, format_args!("{{\"index\":{index},"));
        match self.kind {
            Kind::Chat { .. } => self.chat_delta(index, delta),
            Kind::Completion => {
                let text = if let Delta::Text(text) = delta { text } else { "" };
                self.out.put_slice(b"\"text\":");
                write_json(&mut self.out, text);
            }
        }
        self.out.put_slice(b",\"logprobs\":");
        let (tokens, offset) = match delta {
            Delta::Role => (Vec::new(), 0),
            _ => self.choices[index].logprobs.take(),
        };
        match self.kind {
            _ if tokens.is_empty() => self.out.put_slice(b"null"),
            Kind::Chat { .. } => write_json(&mut self.out, &ChatLogprobs::new(&tokens)),
            Kind::Completion => {
                write_json(&mut self.out, &CompletionLogprobs::new(&tokens, offset));
            }
        }
        write_finish(&mut self.out, finish);
        if self.options.continuous_usage {
            self.out.put_slice(b",\"usage\":");
            write_json(&mut self.out, &self.usage.body());
        }
        if let Some(seed) = self.seed.take() {
            put(&mut self.out, format_args!(",\"seed\":{seed}"));
        }
        self.out.put_slice(b"}");
    }

    fn chat_delta(&mut self, choice: usize, delta: &Delta<'_>) {
        let out = &mut self.out;
        out.put_slice(b"\"delta\":{");
        match delta {
            Delta::Role => out.put_slice(br#""role":"assistant","content":"""#),
            Delta::Text(text) => {
                out.put_slice(b"\"content\":");
                write_json(out, text);
            }
            Delta::CallName { call, name } => {
                let id = call_id(&self.meta.id, choice, *call);
                let (id, name) = (quoted(&id), quoted(name));
                put(
                    out,
                    format_args!(
                        r#""tool_calls":[{{"index":{call},"id":{id},"type":"function","function":{{"name":{name},"arguments":""}}}}]"#
                    ),
                );
            }
            Delta::CallArguments { call, arguments } => {
                let arguments = quoted(arguments);
                put(
                    out,
                    format_args!(
                        r#""tool_calls":[{{"index":{call},"function":{{"arguments":{arguments}}}}}]"#
                    ),
                );
            }
            Delta::Nothing => {}
        }
        out.put_slice(b"}");
    }
}

impl Choice {
    fn new(kind: Kind) -> Self {
        let logprobs = HeldLogprobs::default();
        Self { splitter: Splitter::new(kind), logprobs, begun: false, calls: 0 }
    }
}

fn write_finish(out: &mut BytesMut, reason: Option<&str>) {
    match reason {
        Some(reason) => put(out, format_args!(",\"finish_reason\":\"{reason}\"}}]")),
        None => out.put_slice(b",\"finish_reason\":null}]"),
    }
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory grows as needed");
}

fn write_json(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out.writer(), value).expect("strings and finite numbers serialize");
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings serialize")
}
