//! `pinion chat`: talk to a package, or to any OpenAI endpoint, in the terminal.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::client::Client;
use super::node::Node;
use super::{CliError, serve, terminal};
use crate::config::{self, Flags};

const HELP: &str = "\
/clear           forget the conversation
/system TEXT     set the instructions, and forget the conversation
/help            this
/quit            leave, as Ctrl-D does
Ctrl-C           stop the answer";

/// Talks to a model in the terminal: a package, or a URL of any OpenAI endpoint.
///
/// Example: `pinion chat http://127.0.0.1:8080`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A package directory or http URL; the built-in pinion-tiny if there is none.
    target: Option<String>,
    /// Instructions that come before the conversation.
    #[arg(long)]
    system: Option<String>,
    /// Randomness; 0 always takes the most likely token [default: the package's].
    #[arg(long)]
    temperature: Option<f64>,
    /// Longest answer in tokens.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Model to ask for [default: the first of /v1/models].
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

/// A conversation and where it is held.
struct Chat {
    client: Client,
    model: String,
    system: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    messages: Vec<Value>,
}

/// What to do after a line.
enum Next {
    Ask,
    Nothing,
    Leave,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    serve::runtime()?.block_on(chat(args))
}

async fn chat(args: &Args) -> Result<ExitCode, CliError> {
    let target = args.target.as_deref();
    if let Some(url) = target.filter(|target| target.starts_with("http")) {
        let client = Client::new(url, config::env_var("PINION_API_KEY"))?;
        let model = match &args.model {
            Some(model) => model.clone(),
            None => client.models().await?.into_iter().next().ok_or_else(|| {
                CliError::failed(format!("{url} serves no model")).hint("name one with --model")
            })?,
        };
        return converse(args, client, model).await;
    }
    let listener = serve::bind(([127, 0, 0, 1], 0).into()).await?;
    let node = Node::start(target, &args.flags, listener).await?;
    let result = converse(args, node.client()?, node.model().to_owned()).await;
    node.stop().await;
    result
}

async fn converse(args: &Args, client: Client, model: String) -> Result<ExitCode, CliError> {
    terminal::note(format!("talking to {model}; /help says what else there is"));
    let mut chat = Chat {
        client,
        model,
        system: args.system.clone(),
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        messages: Vec::new(),
    };
    let mut editor =
        DefaultEditor::new().map_err(|e| CliError::failed(format!("no terminal: {e}")))?;
    loop {
        let (line, back) = read_line(editor).await?;
        editor = back;
        match line {
            Err(ReadlineError::Interrupted) => terminal::note("Ctrl-D leaves"),
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(CliError::failed(format!("the line was not read: {error}"))),
            Ok(line) => match chat.take(&line) {
                Next::Ask => chat.answer().await?,
                Next::Nothing => {}
                Next::Leave => return Ok(ExitCode::SUCCESS),
            },
        }
    }
}

/// Reads a line on a thread that may wait.
async fn read_line(
    mut editor: DefaultEditor,
) -> Result<(Result<String, ReadlineError>, DefaultEditor), CliError> {
    let read = move || {
        let line = editor.readline("> ");
        if let Ok(line) = &line {
            // A line that is not kept can only not be recalled.
            let _ = editor.add_history_entry(line);
        }
        (line, editor)
    };
    tokio::task::spawn_blocking(read).await.map_err(|e| CliError::failed(e.to_string()))
}

impl Chat {
    fn take(&mut self, line: &str) -> Next {
        let line = line.trim();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "" => return Next::Nothing,
            "/quit" | "/exit" => return Next::Leave,
            "/help" => terminal::note(HELP),
            "/clear" => self.messages.clear(),
            "/system" => {
                self.system = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
                self.messages.clear();
            }
            _ => {
                self.messages.push(json!({ "role": "user", "content": line }));
                return Next::Ask;
            }
        }
        Next::Nothing
    }

    fn body(&self) -> Value {
        let system = self.system.iter().map(|text| json!({ "role": "system", "content": text }));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let mut body = json!({
            "model": self.model, "messages": messages, "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let Some(temperature) = self.temperature {
            body["temperature"] = temperature.into();
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = max_tokens.into();
        }
        body
    }

    /// Streams an answer until it ends or Ctrl-C; a failure is shown and the question forgotten.
    async fn answer(&mut self) -> Result<(), CliError> {
        let mut answer = String::new();
        let start = Instant::now();
        let body = self.body();
        let streamed = tokio::select! {
            streamed = stream(&self.client, &body, &mut answer) => streamed,
            stopped = serve::stop_signal() => stopped.map(|()| None),
        };
        terminal::result("");
        match streamed {
            Ok(Some((ttft, tokens))) => terminal::note(figures(ttft, start.elapsed(), tokens)),
            Ok(None) => terminal::note("(stopped)"),
            Err(error) => {
                terminal::report(&error);
                self.messages.pop();
                return Ok(());
            }
        }
        self.messages.push(json!({ "role": "assistant", "content": answer }));
        Ok(())
    }
}

/// Prints the pieces as they come; time to the first one and tokens in all.
async fn stream(
    client: &Client,
    body: &Value,
    answer: &mut String,
) -> Result<Option<(Duration, u64)>, CliError> {
    let start = Instant::now();
    let (mut ttft, mut tokens) = (None, 0);
    let mut events = client.stream("/v1/chat/completions", body).await?;
    while let Some(chunk) = events.next_json().await? {
        if let Some(text) = chunk.pointer("/choices/0/delta/content").and_then(Value::as_str) {
            ttft.get_or_insert_with(|| start.elapsed());
            answer.push_str(text);
            terminal::stream(text);
        }
        if let Some(count) = chunk.pointer("/usage/completion_tokens").and_then(Value::as_u64) {
            tokens = count;
        }
    }
    Ok(Some((ttft.unwrap_or_else(|| start.elapsed()), tokens)))
}

fn figures(ttft: Duration, all: Duration, tokens: u64) -> String {
    let rate = tokens as f64 / all.as_secs_f64().max(1e-9);
    let first = ttft.as_secs_f64() * 1e3;
    format!("[{tokens} tokens, first after {first:.0} ms, {rate:.0} tokens/s]")
}
