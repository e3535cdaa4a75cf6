//! `pinion run`: one prediction, streamed to the terminal.

use std::process::ExitCode;

use pinion_cog_compat::manifest::InputAliases;
use pinion_cog_compat::{GenerationInputs, InputValidator, Schema};
use serde_json::{Map, Value, json};

use super::local::Local;
use super::{CliError, terminal};
use crate::cog_inputs;
use crate::config::Flags;
use crate::ipc::Event;
use crate::supervisor::Package;

/// Runs one prediction and streams its output; takes the same inputs as `cog run`.
///
/// Example: `pinion run ./my-model -i prompt="Count from 1 to 5." -i temperature=0`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package directory; the built-in pinion-tiny if there is none.
    package: Option<String>,
    /// An input, as name=value; a value that starts with @ is read from that file.
    #[arg(short, long = "input", value_name = "NAME=VALUE", required = true)]
    inputs: Vec<String>,
    /// Print the whole prediction as JSON when it is done.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let inputs = parse_inputs(&args.inputs)?;
    super::serve::runtime()?.block_on(async {
        let local = Local::start(args.package.as_deref(), &args.flags).await?;
        let result = predict(&local.package, &inputs, args.json).await;
        local.stop().await;
        result
    })
}

async fn predict(
    package: &Package,
    inputs: &Map<String, Value>,
    as_json: bool,
) -> Result<ExitCode, CliError> {
    let inputs = validate(&package.manifest().pinion.inputs, inputs)?;
    let seed = cog_inputs::random_seed();
    let failed = |error: &dyn std::fmt::Display| CliError::failed(error.to_string());
    let (prompt, params) = cog_inputs::generation(inputs, seed).map_err(|e| failed(&e))?;
    let seed = params.seed;
    let generation = package.generate(prompt, params).map_err(|e| failed(&e))?;
    let mut events = generation.events();
    let mut output = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Started { .. } => {}
            Event::Delta { text, .. } if as_json => output.push_str(&text),
            Event::Delta { text, .. } => terminal::stream(&text),
            Event::Finished { usage, .. } if as_json => {
                let result = json!({
                    "output": output, "seed": seed, "status": "succeeded",
                    "metrics": {
                        "input_token_count": usage.prompt_tokens,
                        "output_token_count": usage.completion_tokens,
                    },
                });
                terminal::result(result.to_string());
            }
            Event::Finished { .. } => terminal::result(""),
            Event::Failed(error) => return Err(failed(&crate::error::ApiError::from(error))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Inputs as given, checked against the schema that the package's HTTP API shows.
fn validate(
    aliases: &InputAliases,
    inputs: &Map<String, Value>,
) -> Result<GenerationInputs, CliError> {
    let schema = Schema::native(env!("CARGO_PKG_VERSION"), aliases);
    let validator = InputValidator::for_predictions(&schema)
        .map_err(|e| CliError::failed(format!("the schema of the package is invalid: {e}")))?;
    let valid = validator
        .validate(&Value::Object(inputs.clone()))
        .map_err(|e| CliError::usage(e.to_string()))?;
    if let [first, ..] = valid.stripped.as_slice() {
        let known: Vec<String> = schema
            .component("Input")
            .and_then(|input| input.get("properties")?.as_object())
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        return Err(CliError::usage(format!("no such input: {first}"))
            .hint(format!("the inputs are {}", known.join(", "))));
    }
    GenerationInputs::from_input(&valid.given, aliases).map_err(|e| CliError::usage(e.to_string()))
}

/// `name=value` pairs; a value that reads as JSON number or boolean is one.
fn parse_inputs(pairs: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut inputs = Map::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            CliError::usage(format!("an input is not name=value: {pair}"))
                .hint("write -i prompt=\"Hello\"")
        })?;
        let value = match value.strip_prefix('@') {
            Some(file) => Value::String(
                std::fs::read_to_string(file)
                    .map_err(|e| CliError::not_found(format!("{file}: {e}")))?,
            ),
            None => typed(name, value),
        };
        inputs.insert(name.to_owned(), value);
    }
    Ok(inputs)
}

/// Texts stay texts: a prompt of `42` is not a number.
fn typed(name: &str, value: &str) -> Value {
    let is_text = matches!(name, "prompt" | "system_prompt" | "prompt_template" | "stop_sequences");
    match serde_json::from_str(value) {
        Ok(typed @ (Value::Number(_) | Value::Bool(_))) if !is_text => typed,
        _ => Value::String(value.to_owned()),
    }
}
