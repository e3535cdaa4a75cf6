//! Requests through the HTTP API whose answers are known.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::CliError;
use super::super::client::{Client, error_text};

/// Streams at once in the batching check.
const STREAMS: u32 = 8;

/// What a check may use.
pub(super) struct Context<'a> {
    pub(super) client: &'a Client,
    pub(super) model: &'a str,
}

/// What a check shows when it holds.
type Outcome<'a> = Pin<Box<dyn Future<Output = Result<String, CliError>> + Send + 'a>>;

/// One line of the demo.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) run: for<'a> fn(&'a Context<'a>) -> Outcome<'a>,
}

/// The demo, in order.
pub(super) const CHECKS: &[Check] = &[
    Check { name: "streamed count", run: |context| Box::pin(streamed_count(context)) },
    Check { name: "JSON extraction", run: |context| Box::pin(json_extraction(context)) },
    Check { name: "tool call", run: |context| Box::pin(tool_call(context)) },
    Check { name: "tool result", run: |context| Box::pin(tool_result(context)) },
    Check { name: "eight streams at once", run: |context| Box::pin(streams_at_once(context)) },
    Check { name: "same seed, same text", run: |context| Box::pin(same_seed(context)) },
    Check { name: "Cog prediction", run: |context| Box::pin(cog_prediction(context)) },
    Check { name: "clear error for bad input", run: |context| Box::pin(clear_error(context)) },
];

impl Context<'_> {
    fn body(&self, messages: &Value) -> Value {
        json!({ "model": self.model, "messages": messages, "temperature": 0, "max_tokens": 400 })
    }

    fn ask(&self, question: &str) -> Value {
        self.body(&json!([{ "role": "user", "content": question }]))
    }

    async fn answer(&self, body: &Value) -> Result<Value, CliError> {
        let (status, answer) = self.client.post("/v1/chat/completions", body).await?;
        if !status.is_success() {
            return Err(CliError::failed(format!("status {status}: {}", error_text(&answer))));
        }
        Ok(answer["choices"][0].clone())
    }

    /// The streamed text, and how many pieces it came in.
    async fn streamed(&self, mut body: Value) -> Result<(String, u32), CliError> {
        body["stream"] = true.into();
        let mut events = self.client.stream("/v1/chat/completions", &body).await?;
        let (mut text, mut pieces) = (String::new(), 0);
        while let Some(chunk) = events.next_json().await? {
            if let Some(piece) = chunk.pointer("/choices/0/delta/content").and_then(Value::as_str) {
                text.push_str(piece);
                pieces += u32::from(!piece.is_empty());
            }
        }
        Ok((text, pieces))
    }
}

async fn streamed_count(context: &Context<'_>) -> Result<String, CliError> {
    let (text, pieces) = context.streamed(context.ask("Count from 3 to 17.")).await?;
    expect(&text, &numbers(3, 17))?;
    if pieces < 2 {
        return Err(CliError::failed("the answer came in one piece"));
    }
    Ok(format!("{text}  [{pieces} pieces]"))
}

async fn json_extraction(context: &Context<'_>) -> Result<String, CliError> {
    let question = "Extract JSON: Greta, aged 57, is from Lisbon.";
    let choice = context.answer(&context.ask(question)).await?;
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    let found: Value = serde_json::from_str(text)
        .map_err(|e| CliError::failed(format!("the answer is no JSON: {text}: {e}")))?;
    expect(&found, &json!({ "name": "Greta", "age": 57, "city": "Lisbon" }))?;
    Ok(text.to_owned())
}

fn tools() -> Value {
    let tool = |name: &str, parameter: &str| {
        let parameters =
            json!({ "type": "object", "properties": { parameter: { "type": "string" } } });
        json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
    };
    json!([tool("get_time", "city"), tool("get_weather", "city")])
}

async fn tool_call(context: &Context<'_>) -> Result<String, CliError> {
    let mut body = context.ask("What is the weather in Oslo?");
    body["tools"] = tools();
    let choice = context.answer(&body).await?;
    expect(&choice["finish_reason"], &json!("tool_calls"))?;
    let function = &choice["message"]["tool_calls"][0]["function"];
    let arguments = function["arguments"].as_str().unwrap_or_default();
    expect(&function["name"], &json!("get_weather"))?;
    let parsed: Value = serde_json::from_str(arguments).unwrap_or_default();
    expect(&parsed, &json!({ "city": "Oslo" }))?;
    Ok(format!("get_weather({arguments})"))
}

async fn tool_result(context: &Context<'_>) -> Result<String, CliError> {
    let call = json!({
        "id": "call_0", "type": "function",
        "function": { "name": "get_weather", "arguments": "{\"city\": \"Oslo\"}" },
    });
    let mut body = context.body(&json!([
        { "role": "user", "content": "What is the weather in Oslo?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_0",
          "content": "{\"sky\": \"snowing\", \"temperature\": 3}" },
    ]));
    body["tools"] = tools();
    let choice = context.answer(&body).await?;
    expect(&choice["message"]["content"], &json!("It is snowing in Oslo, 3 degrees."))?;
    Ok("It is snowing in Oslo, 3 degrees.".to_owned())
}

async fn streams_at_once(context: &Context<'_>) -> Result<String, CliError> {
    let start = Instant::now();
    let streams = (1..=STREAMS).map(|n| async move {
        let (first, last) = (n * 10, n * 10 + 12);
        let question = format!("Count from {first} to {last}.");
        let (text, pieces) = context.streamed(context.ask(&question)).await?;
        expect(&text, &numbers(first, last))?;
        Ok::<u32, CliError>(pieces)
    });
    let pieces = futures_util::future::try_join_all(streams).await?;
    let tokens: u32 = pieces.iter().sum();
    let rate = f64::from(tokens) / start.elapsed().as_secs_f64();
    Ok(format!("{STREAMS} right answers, {rate:.0} tokens/s together"))
}

async fn same_seed(context: &Context<'_>) -> Result<String, CliError> {
    let ask = |seed: u64| {
        let mut body = context.ask("Who are you?");
        body["temperature"] = json!(2.0);
        body["max_tokens"] = json!(24);
        body["seed"] = json!(seed);
        body
    };
    let (first, second, other) = tokio::try_join!(
        context.streamed(ask(7)),
        context.streamed(ask(7)),
        context.streamed(ask(8))
    )?;
    expect(&second.0, &first.0)?;
    if other.0 == first.0 {
        return Err(CliError::failed("another seed gave the same text"));
    }
    Ok("at temperature 2, in one batch with another seed".to_owned())
}

async fn cog_prediction(context: &Context<'_>) -> Result<String, CliError> {
    let body = json!({ "input": { "prompt": "Spell river.", "temperature": 0 } });
    let (status, answer) = context.client.post("/predictions", &body).await?;
    if !status.is_success() {
        return Err(CliError::failed(format!("status {status}: {}", error_text(&answer))));
    }
    expect(&answer["status"], &json!("succeeded"))?;
    let pieces = answer["output"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text: String = pieces.iter().filter_map(Value::as_str).collect();
    expect(text.as_str(), "r-i-v-e-r")?;
    Ok(text)
}

async fn clear_error(context: &Context<'_>) -> Result<String, CliError> {
    let mut body = context.ask("Hello");
    body["temperature"] = json!(-1);
    let (status, answer) = context.client.post("/v1/chat/completions", &body).await?;
    expect(&json!(status.as_u16()), &json!(400))?;
    expect(&answer["error"]["param"], &json!("temperature"))?;
    Ok(error_text(&answer))
}

fn numbers(first: u32, last: u32) -> String {
    (first..=last).map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

fn expect<T: PartialEq + std::fmt::Debug + ?Sized>(
    found: &T,
    expected: &T,
) -> Result<(), CliError> {
    if found == expected {
        return Ok(());
    }
    Err(CliError::failed(format!("expected {expected:?}, found {found:?}")))
}
