//! `pinion demo`: the main job on the built-in model, with every answer checked.

mod checks;
mod machine;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::client::Client;
use super::node::Node;
use super::{CliError, serve, terminal};
use crate::config::Flags;
use checks::{CHECKS, Context};

/// Starts on the built-in model, shows the main job with checked answers, and keeps serving.
///
/// Example: `pinion demo --exit`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End after the checks, with exit code 1 if any failed.
    #[arg(long)]
    exit: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    serve::runtime()?.block_on(demo(args))
}

async fn demo(args: &Args) -> Result<ExitCode, CliError> {
    terminal::result("machine");
    for (what, found) in machine::describe() {
        terminal::result(format!("  {what:10} {found}"));
    }
    let start = Instant::now();
    let node = Node::start(None, &args.flags, listener(args).await?).await?;
    let ready = start.elapsed();
    let client = node.client()?;
    let first = time_to_first_token(&client, node.model()).await?;
    terminal::result(format!(
        "\n{}: built in, {:.1}M parameters, {}",
        node.model(),
        node.info.num_parameters as f64 / 1e6,
        node.info.dtype
    ));
    terminal::result(format!(
        "  {:10} {} ms from start to ready, of these {} ms loading",
        "start",
        ready.as_millis(),
        node.info.load_millis
    ));
    terminal::result(format!("  {:10} {:.1} ms\n", "first token", first.as_secs_f64() * 1e3));
    let failed = check_all(&Context { client: &client, model: node.model() }).await;
    if failed != 0 {
        terminal::result(format!("\n{failed} of {} checks failed", CHECKS.len()));
    }
    if args.exit {
        node.stop().await;
        return Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    terminal::result(lines_to_paste(client.base(), node.model()));
    serve::stop_asked(&node.app).await?;
    node.stop().await;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The configured address; a free port of it where another program has it and nobody chose it.
async fn listener(args: &Args) -> Result<tokio::net::TcpListener, CliError> {
    let config = serve::typed(&serve::resolve(&args.flags, None)?)?;
    let mut listen = config.serve.listen;
    match serve::bind(listen).await {
        Err(_taken) if args.exit || args.flags.0.iter().all(|(name, _)| *name != "listen") => {
            listen.set_port(0);
            serve::bind(listen).await
        }
        bound => bound,
    }
}

async fn time_to_first_token(client: &Client, model: &str) -> Result<Duration, CliError> {
    let body = serde_json::json!({
        "model": model, "stream": true, "max_tokens": 2, "temperature": 0,
        "messages": [{ "role": "user", "content": "Hello" }],
    });
    let start = Instant::now();
    let mut events = client.stream("/v1/chat/completions", &body).await?;
    let mut first = None;
    while let Some(chunk) = events.next_json().await? {
        if chunk.pointer("/choices/0/delta/content").is_some_and(|text| text != "") {
            first.get_or_insert_with(|| start.elapsed());
        }
    }
    first.ok_or_else(|| CliError::failed("the model said nothing"))
}

/// Runs every check and prints a line for each; how many failed.
async fn check_all(context: &Context<'_>) -> usize {
    let mut failed = 0;
    for check in CHECKS {
        let start = Instant::now();
        let result = (check.run)(context).await;
        let millis = start.elapsed().as_millis();
        match result {
            Ok(shown) => {
                terminal::result(format!("  ok    {:28} {shown}  ({millis} ms)", check.name));
            }
            Err(error) => {
                failed += 1;
                terminal::result(format!("  FAIL  {:28} {error}  ({millis} ms)", check.name));
            }
        }
    }
    failed
}

fn lines_to_paste(base: &str, model: &str) -> String {
    format!(
        r#"
Serving on {base} until Ctrl-C. Try it from another terminal:

  curl {base}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Count from 1 to 9."}}]}}'

  curl {base}/predictions -H 'content-type: application/json' \
    -d '{{"input": {{"prompt": "Spell river.", "temperature": 0}}}}'

  python -c 'from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="none")
  question = [{{"role": "user", "content": "Sort: 31 4 15"}}]
  print(client.chat.completions.create(model="{model}", messages=question).choices[0].message.content)'

  pinion chat {base}"#
    )
}
