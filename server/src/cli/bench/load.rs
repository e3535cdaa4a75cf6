//! Sends the requests and notes when their tokens came.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::CliError;
use super::super::client::Client;
use super::workload::{SplitMix, Workload};

const PATH: &str = "/v1/completions";
/// Words of the request that finds out how long words are in tokens.
const CALIBRATION_WORDS: usize = 64;

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arrival {
    /// A new one whenever fewer than this many run.
    Concurrency(usize),
    /// This many a second, at random times.
    Rate(f64),
}

/// What became of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// From the request to the first piece of text.
    pub(super) ttft: Option<Duration>,
    /// Between pieces of text.
    pub(super) gaps: Vec<Duration>,
    /// From the request to the last piece.
    pub(super) e2e: Duration,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    /// Set when the request did not end well.
    pub(super) error: Option<String>,
}

/// How many words of the workload are how many tokens of the server's tokenizer.
pub(super) async fn calibrate(client: &Client, model: &str) -> Result<(usize, usize), CliError> {
    let workload = Workload {
        model: model.to_owned(),
        seed: 0,
        prompt_words: CALIBRATION_WORDS,
        shared_words: 0,
        output_tokens: 1,
    };
    let record = one(client, &workload.body(0)).await;
    match record {
        Record { error: Some(error), .. } => {
            Err(CliError::failed(format!("the first request failed: {error}")))
        }
        Record { prompt_tokens: 0, .. } => Ok((1, 1)),
        Record { prompt_tokens, .. } => Ok((CALIBRATION_WORDS, prompt_tokens as usize)),
    }
}

/// Sends `count` requests; `done` hears how many have ended.
pub(super) async fn run(
    client: &Client,
    workload: &Workload,
    count: usize,
    arrival: Arrival,
    done: impl Fn(u64),
) -> Result<(Vec<Record>, Duration), CliError> {
    let start = Instant::now();
    let mut random = SplitMix(workload.seed ^ 0xa551);
    let mut due = Duration::ZERO;
    let mut running = JoinSet::new();
    let mut records = Vec::with_capacity(count);
    for index in 0..count {
        match arrival {
            Arrival::Concurrency(limit) => {
                while limit <= running.len() {
                    records.extend(ended(&mut running).await?);
                    done(records.len() as u64);
                }
            }
            Arrival::Rate(rate) => {
                tokio::time::sleep_until((start + due).into()).await;
                due += Duration::from_secs_f64(-random.unit().ln() / rate);
            }
        }
        let (client, body) = (client.clone(), workload.body(index));
        running.spawn(async move { one(&client, &body).await });
    }
    while let Some(record) = ended(&mut running).await? {
        records.push(record);
        done(records.len() as u64);
    }
    Ok((records, start.elapsed()))
}

async fn ended(running: &mut JoinSet<Record>) -> Result<Option<Record>, CliError> {
    let joined = running.join_next().await.transpose();
    joined.map_err(|e| CliError::failed(format!("a request was lost: {e}")))
}

async fn one(client: &Client, body: &Value) -> Record {
    let start = Instant::now();
    let mut record = Record::default();
    if let Err(error) = read(client, body, start, &mut record).await {
        record.error = Some(error.to_string());
    } else if record.ttft.is_none() {
        record.error = Some("the stream held no text".to_owned());
    }
    record
}

async fn read(
    client: &Client,
    body: &Value,
    start: Instant,
    record: &mut Record,
) -> Result<(), CliError> {
    let mut events = client.stream(PATH, body).await?;
    let mut last = None::<Instant>;
    let mut pieces = 0;
    while let Some(chunk) = events.next_json().await? {
        let now = Instant::now();
        if has_token(&chunk) {
            match last {
                None => record.ttft = Some(now - start),
                Some(last) => record.gaps.push(now - last),
            }
            last = Some(now);
            record.e2e = now - start;
            pieces += 1;
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            let count = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
            record.prompt_tokens = count("/prompt_tokens");
            record.cached_tokens = count("/prompt_tokens_details/cached_tokens");
            record.output_tokens = count("/completion_tokens");
        }
    }
    if record.output_tokens == 0 {
        record.output_tokens = pieces;
    }
    Ok(())
}

/// Whether a chunk carries generated text, even if it is empty so far (half a character).
fn has_token(chunk: &Value) -> bool {
    let Some(choice) = chunk.pointer("/choices/0") else { return false };
    let text = choice.get("text").or_else(|| choice.pointer("/delta/content"));
    text.is_some_and(Value::is_string)
        && (text != Some(&json!("")) || choice["finish_reason"].is_null())
}
