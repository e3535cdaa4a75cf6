//! What both endpoints ask for, once it is known to be valid.

use serde::{Deserialize, Serialize};

use super::sampling::{self, draw_seed};
use crate::error::ApiError;
use crate::ipc::{GenerationParams, Prompt};
use crate::tool_parser::FORMATS;
use crate::wire::fields::Fields;

/// Choices that one request may ask for, over all its prompts.
const MAX_CHOICES: usize = 1024;
const MAX_N: u32 = 128;

/// A request of either endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GenerateRequest {
    /// The model by name; none where only one is served.
    pub(crate) model: Option<String>,
    /// Which endpoint.
    pub(crate) kind: Kind,
    /// What to continue; one for chat.
    #[serde(skip)]
    prompts: Vec<Prompt>,
    /// Choices for each prompt.
    pub(crate) n: usize,
    /// Choices in all.
    pub(crate) choices: usize,
    /// How; `seed` is that of the first choice.
    pub(crate) params: GenerationParams,
    /// Whether and how to stream.
    pub(crate) stream: Option<StreamOptions>,
}

/// Which endpoint's form the answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`.
    Chat {
        /// Whether tool calls in the text are told apart from it.
        tools: bool,
    },
    /// `/v1/completions`.
    Completion,
}

/// What a stream carries besides text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamOptions {
    /// A last chunk with the usage.
    pub(crate) include_usage: bool,
    /// The usage so far in every chunk.
    pub(crate) continuous_usage: bool,
}

impl GenerateRequest {
    /// Reads a chat request.
    pub(crate) fn chat(body: &Fields<'_>) -> Result<Self, ApiError> {
        refuse_unsupported(body)?;
        let (prompt, tools) = super::chat_prompt(body)?;
        let mut params = sampling::params(body, 1)?;
        params.logprobs = sampling::chat_logprobs(body)?;
        if body.flag("echo")? {
            return Err(unsupported("echo", "`echo` is supported only by /v1/completions"));
        }
        if tools && body.boolean("parallel_tool_calls")? == Some(false) {
            params.stop.push(FORMATS[0].close.to_owned());
        }
        Self::new(body, Kind::Chat { tools }, vec![prompt], params)
    }

    /// Reads a request of the completions endpoint.
    pub(crate) fn completion(body: &Fields<'_>) -> Result<Self, ApiError> {
        refuse_unsupported(body)?;
        let prompts = super::completion::prompts(body)?;
        let echo = body.flag("echo")?;
        let mut params = sampling::params(body, u32::from(!echo))?;
        params.max_tokens = params.max_tokens.or(Some(super::completion::DEFAULT_MAX_TOKENS));
        params.logprobs = sampling::completion_logprobs(body)?;
        params.echo = echo;
        Self::new(body, Kind::Completion, prompts, params)
    }

    fn new(
        body: &Fields<'_>,
        kind: Kind,
        prompts: Vec<Prompt>,
        params: GenerationParams,
    ) -> Result<Self, ApiError> {
        let n = body.count("n", 1..=MAX_N)?.unwrap_or(1);
        if let Some(best_of) = body.count("best_of", 1..=MAX_N)?
            && best_of != n
        {
            let message = format!("`best_of` is supported only if it is equal to `n`, {n}");
            return Err(unsupported("best_of", &message));
        }
        let n = n as usize;
        let choices = n * prompts.len();
        if MAX_CHOICES < choices {
            let message = format!("a request may ask for {MAX_CHOICES} choices at most: {choices}");
            return Err(ApiError::invalid("invalid_value", message).at("n"));
        }
        let stream = if body.flag("stream")? { Some(stream_options(body)?) } else { None };
        let model = body.string("model")?.map(str::to_owned);
        Ok(Self { model, kind, prompts, n, choices, params, stream })
    }

    /// Keeps the prefix caches of tenants apart.
    pub(crate) fn salt(&mut self, tenant: u64) {
        let [high, low] = self.params.cache_salt.map(u64::to_le_bytes);
        if tenant != 0 {
            self.params.cache_salt = sampling::salt_of(&[&tenant.to_le_bytes(), &high, &low]);
        }
    }

    /// Puts the prompts back that `take_submissions` took.
    pub(crate) fn restore_prompts(&mut self, prompts: Vec<Prompt>) {
        self.prompts = prompts;
    }

    /// Takes the prompts out. Their choices, one after the other, are in the order of the indexes.
    pub(crate) fn take_submissions(&mut self) -> Vec<Submission> {
        let further = 1..self.n as u64;
        let further_seeds: Vec<u64> =
            further.map(|choice| choice_seed(self.params.seed, choice)).collect();
        let prompts = std::mem::take(&mut self.prompts).into_iter();
        let submission = |prompt| Submission {
            prompt,
            params: self.params.clone(),
            further_seeds: further_seeds.clone(),
        };
        prompts.map(submission).collect()
    }
}

/// One prompt and the answers to it.
#[derive(Debug)]
pub(crate) struct Submission {
    /// What to continue.
    pub(crate) prompt: Prompt,
    /// How; the seed is that of the first choice.
    pub(crate) params: GenerationParams,
    /// Seeds of the other choices.
    pub(crate) further_seeds: Vec<u64>,
}

/// Choices must differ from each other and be the same at every repetition; the first one has the
/// request's own seed. An odd factor, so that no two choices of a request meet.
fn choice_seed(seed: u64, choice: u64) -> u64 {
    seed.wrapping_add(choice.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn stream_options(body: &Fields<'_>) -> Result<StreamOptions, ApiError> {
    let Some(options) = body.object("stream_options")? else {
        return Ok(StreamOptions::default());
    };
    Ok(StreamOptions {
        include_usage: options.flag("include_usage")?,
        continuous_usage: options.flag("continuous_usage_stats")?,
    })
}

/// Fields that would change the result and that this server does not act on.
const UNSUPPORTED: &[&str] = &[
    "add_special_tokens",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "chat_template",
    "continue_final_message",
    "documents",
    "ebnf",
    "function_call",
    "functions",
    "grammar",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "logits_processors",
    "lora_path",
    "mm_processor_kwargs",
    "prompt_embeds",
    "prompt_logprobs",
    "regex",
    "return_hidden_states",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "structural_tag",
    "structured_outputs",
    "suffix",
    "truncate_prompt_tokens",
    "use_beam_search",
    "web_search_options",
];

/// Fields whose default is true and for which only that is served.
const ALWAYS_TRUE: &[&str] = &["add_special_tokens", "add_generation_prompt"];

/// Refuses fields that would change the result, by name.
pub(crate) fn refuse_unsupported(body: &Fields<'_>) -> Result<(), ApiError> {
    let inert = |value: &serde_json::Value| match value {
        serde_json::Value::Null => true,
        serde_json::Value::Bool(on) => !on,
        serde_json::Value::Number(number) => number.as_f64() == Some(0.0),
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Array(values) => values.is_empty(),
        serde_json::Value::Object(map) => map.is_empty(),
    };
    for name in UNSUPPORTED {
        if body.get(name).is_some_and(|value| !inert(value)) {
            return Err(unsupported(name, &format!("`{name}` is not supported")));
        }
    }
    for name in ALWAYS_TRUE {
        if body.boolean(name)? == Some(false) {
            return Err(unsupported(name, &format!("`{name}` is supported only as true")));
        }
    }
    if let Some(modalities) = body.array("modalities")?
        && let Some(other) = modalities.iter().find(|&modality| modality != "text")
    {
        let message = format!("only text can be generated: {other}");
        return Err(unsupported("modalities", &message));
    }
    response_format(body)
}

fn response_format(body: &Fields<'_>) -> Result<(), ApiError> {
    let Some(format) = body.object("response_format")? else { return Ok(()) };
    match format.string("type")? {
        Some("text") => Ok(()),
        Some(kind @ ("json_object" | "json_schema")) => {
            let message = format!("`response_format` is supported only with the type text: {kind}");
            Err(unsupported("response_format.type", &message))
        }
        _ => Err(format.wrong("type", "one of text, json_object and json_schema")),
    }
}

/// An error about a field that this server cannot honour.
pub(super) fn unsupported(param: &str, message: &str) -> ApiError {
    ApiError::invalid("unsupported_parameter", message).at(param)
}

/// The seed of the request, or a fresh one.
pub(super) fn seed(body: &Fields<'_>) -> Result<u64, ApiError> {
    let Some(value) = body.get("seed") else { return Ok(draw_seed()) };
    let signed = value.as_i64().map(i64::cast_unsigned);
    signed.or_else(|| value.as_u64()).ok_or_else(|| body.wrong("seed", "a whole number of 64 bits"))
}
