//! `pinion bench`: a load test of any OpenAI endpoint.

mod load;
mod report;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use super::client::Client;
use super::{CliError, terminal};
use crate::config;
use load::Arrival;
use report::{Report, Slo};
use workload::Workload;

/// Measures an OpenAI endpoint under load: TTFT, ITL, throughput, goodput.
///
/// Example: `pinion bench http://127.0.0.1:8080 --concurrency 16 --requests 64`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server, with or without /v1.
    url: String,
    /// Model to ask for [default: the first of /v1/models].
    #[arg(long)]
    model: Option<String>,
    /// Streams at once.
    #[arg(long, short = 'c', default_value_t = 8, conflicts_with = "rate")]
    concurrency: usize,
    /// Requests a second instead, at random times (Poisson).
    #[arg(long)]
    rate: Option<f64>,
    /// Requests in all.
    #[arg(long, short = 'n', default_value_t = 32)]
    requests: usize,
    /// Tokens of each prompt, about.
    #[arg(long, default_value_t = 128)]
    prompt_tokens: usize,
    /// Of these, the same in all prompts.
    #[arg(long, default_value_t = 0)]
    shared_prefix_tokens: usize,
    /// Tokens to generate; the end of the text is ignored.
    #[arg(long, default_value_t = 64)]
    output_tokens: usize,
    /// Requests sent first and not counted.
    #[arg(long, default_value_t = 2)]
    warm_up: usize,
    /// Goodput counts requests whose first token came within this many milliseconds ...
    #[arg(long, default_value_t = 1000.0)]
    slo_ttft_ms: f64,
    /// ... and whose mean time per further token is at most this.
    #[arg(long, default_value_t = 100.0)]
    slo_tpot_ms: f64,
    /// Makes prompts and arrival times repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Key of the server [default: `PINION_API_KEY`].
    #[arg(long)]
    api_key: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    if args.requests == 0 || args.concurrency == 0 || args.output_tokens == 0 {
        return Err(CliError::usage("requests, concurrency and output tokens are at least 1"));
    }
    if args.rate.is_some_and(|rate| !(rate.is_finite() && 0.0 < rate)) {
        return Err(CliError::usage("the rate is above 0"));
    }
    super::serve::runtime()?.block_on(bench(args))
}

async fn bench(args: &Args) -> Result<ExitCode, CliError> {
    let key = args.api_key.clone().or_else(|| config::env_var("PINION_API_KEY"));
    let client = Client::new(&args.url, key)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => client.models().await?.into_iter().next().ok_or_else(|| {
            CliError::failed(format!("{} serves no model", client.base()))
                .hint("name one with --model")
        })?,
    };
    let words_per_token = load::calibrate(&client, &model).await?;
    let workload = Workload {
        model,
        seed: args.seed,
        prompt_words: words(args.prompt_tokens, words_per_token),
        shared_words: words(args.shared_prefix_tokens.min(args.prompt_tokens), words_per_token),
        output_tokens: args.output_tokens,
    };
    let arrival = match args.rate {
        Some(rate) => Arrival::Rate(rate),
        None => Arrival::Concurrency(args.concurrency),
    };
    if 0 < args.warm_up {
        let warm = Arrival::Concurrency(args.warm_up);
        load::run(&client, &workload.warm_up(), args.warm_up, warm, |_| {}).await?;
    }
    let bar = terminal::progress(args.requests as u64, "requests");
    let (records, elapsed) =
        load::run(&client, &workload, args.requests, arrival, |done| bar.set_position(done))
            .await?;
    bar.finish_and_clear();
    let slo = Slo {
        ttft: Duration::from_secs_f64(args.slo_ttft_ms / 1e3),
        tpot: Duration::from_secs_f64(args.slo_tpot_ms / 1e3),
    };
    let report = Report::new(&records, elapsed, slo);
    if args.json {
        terminal::result(report.to_json(&workload, arrival).to_string());
    } else {
        terminal::result(report.to_table(&workload, arrival));
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn words(tokens: usize, words_per_token: (usize, usize)) -> usize {
    let (words, counted) = words_per_token;
    (tokens * words).div_ceil(counted)
}
