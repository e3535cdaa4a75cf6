//! What the inputs of a native text package mean for generation.
mod template;

use serde_json::{Map, Value};

use crate::manifest::{InputAliases, InputName};

pub use template::render_template;

/// Names that LLM packages of Cog commonly use for another input; a native package takes them too.
pub const BUILT_IN_ALIASES: [(InputName, &str); 2] =
    [(InputName::MaxTokens, "max_new_tokens"), (InputName::MinTokens, "min_new_tokens")];

/// What a prediction asks of the engine. `None` is off, random, or the package's own default.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationInputs {
    /// The text to answer or to continue.
    pub prompt: String,
    /// Instructions that come before the prompt.
    pub system_prompt: Option<String>,
    /// A template with Python's `str.format` marks `{prompt}` and `{system_prompt}`; it was checked.
    pub prompt_template: Option<String>,
    /// The most tokens to generate.
    pub max_tokens: u32,
    /// The fewest tokens to generate.
    pub min_tokens: u32,
    /// Randomness; 0 is greedy.
    pub temperature: f64,
    /// Share of the probability to choose from, 0 to 1.
    pub top_p: f64,
    /// How many tokens to choose from.
    pub top_k: Option<u32>,
    /// Taken off the score of tokens that occurred.
    pub presence_penalty: f64,
    /// Taken off the score of a token for each time it occurred.
    pub frequency_penalty: f64,
    /// Divides the score of tokens that occurred; 1 is off.
    pub repetition_penalty: f64,
    /// Texts that end the output; none is empty.
    pub stop: Vec<String>,
    /// Makes the output repeatable.
    pub seed: Option<u64>,
}

/// Inputs that are valid one by one and wrong together. The codes are those that LLM packages of Cog use; such a
/// prediction fails with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// There is nothing to generate from.
    #[error("E1001 PromptRequired: A prompt is required, but your formatted prompt is blank")]
    PromptRequired,
    /// The template has no place for the prompt.
    #[error(
        "E1003 BadPromptTemplate: You have submitted both a prompt and a prompt template that doesn't include \
         '{{prompt}}'. Your prompt would not be used."
    )]
    BadPromptTemplate,
    /// The template is no format of Python.
    #[error("E1004 PromptTemplateError: Prompt template must be a valid python format spec: {0}")]
    PromptTemplate(String),
    /// Two names for the least length, with different values.
    #[error("E1101 InvalidArgumentMinTokens: Can't set both {0} ({1}) and {2} ({3})")]
    MinTokens(String, String, String, String),
    /// Two names for the greatest length, with different values.
    #[error("E1102 InvalidArgumentMaxTokens: Can't set both {0} ({1}) and {2} ({3})")]
    MaxTokens(String, String, String, String),
    /// Two names for anything else, with different values.
    #[error("E1000 GenericError: Can't set both {0} ({1}) and {2} ({3})")]
    Twice(String, String, String, String),
    /// The least length is over the greatest.
    #[error("E1000 GenericError: min_tokens must be less than or equal to max_tokens={1}, got {0}")]
    Lengths(u32, u32),
    /// A value that the schema of a native package would have refused.
    #[error("E1000 GenericError: {0} must be {1}: {2}")]
    Type(String, &'static str, String),
}

impl GenerationInputs {
    /// Reads validated inputs. `given` is what the caller sent: a value given under any name of an input comes before
    /// the defaults of the schema, which are the ones used here too.
    pub fn from_input(
        given: &Map<String, Value>,
        aliases: &InputAliases,
    ) -> Result<Self, InputError> {
        let inputs = Inputs { given, aliases };
        let prompt = inputs.text(InputName::Prompt)?.unwrap_or_default();
        let system_prompt = inputs.text(InputName::SystemPrompt)?;
        let prompt_template =
            inputs.text(InputName::PromptTemplate)?.filter(|template| !template.is_empty());
        let formatted = match &prompt_template {
            Some(template) => {
                &render_template(template, &prompt, system_prompt.as_deref().unwrap_or_default())?
            }
            None => &prompt,
        };
        if formatted.trim().is_empty() {
            return Err(InputError::PromptRequired);
        }
        let max_tokens = inputs.count(InputName::MaxTokens)?.unwrap_or(512);
        let min_tokens = inputs.count(InputName::MinTokens)?.unwrap_or(0);
        if min_tokens > max_tokens {
            return Err(InputError::Lengths(min_tokens, max_tokens));
        }
        Ok(Self {
            max_tokens,
            min_tokens,
            temperature: inputs.number(InputName::Temperature)?.unwrap_or(0.6),
            top_p: inputs.number(InputName::TopP)?.unwrap_or(0.9),
            top_k: inputs.top_k()?,
            presence_penalty: inputs.number(InputName::PresencePenalty)?.unwrap_or(0.0),
            frequency_penalty: inputs.number(InputName::FrequencyPenalty)?.unwrap_or(0.0),
            repetition_penalty: inputs.number(InputName::RepetitionPenalty)?.unwrap_or(1.0),
            stop: inputs.stop()?,
            seed: inputs
                .integer(InputName::Seed)?
                .filter(|seed| !matches!(seed, 0 | -1))
                .map(i64::cast_unsigned),
            prompt,
            system_prompt,
            prompt_template,
        })
    }
}

struct Inputs<'i> {
    given: &'i Map<String, Value>,
    aliases: &'i InputAliases,
}

impl<'i> Inputs<'i> {
    /// The one value given for an input under any of its names, with that name.
    fn value(&self, input: InputName) -> Result<Option<(&'i str, &'i Value)>, InputError> {
        let built_in =
            BUILT_IN_ALIASES.iter().filter(|(meaning, _)| *meaning == input).map(|(_, name)| *name);
        let names = [input.name()].into_iter().chain(self.aliases.of(input)).chain(built_in);
        let mut found: Option<(&'i str, &'i Value)> = None;
        for name in names {
            let Some((name, value)) = self.given.get_key_value(name) else { continue };
            match found {
                _ if value.is_null() => {}
                None => found = Some((name, value)),
                Some((first, other)) if other != value => {
                    return Err(twice(input, (first, other), (name, value)));
                }
                Some(_) => {}
            }
        }
        Ok(found)
    }

    fn text(&self, input: InputName) -> Result<Option<String>, InputError> {
        let read = |(name, value): (&str, &Value)| {
            value.as_str().map(str::to_owned).ok_or(wrong(name, "a string", value))
        };
        self.value(input)?.map(read).transpose()
    }

    fn number(&self, input: InputName) -> Result<Option<f64>, InputError> {
        let read =
            |(name, value): (&str, &Value)| value.as_f64().ok_or(wrong(name, "a number", value));
        self.value(input)?.map(read).transpose()
    }

    /// An integer; `3.0` is one, as for the validator.
    fn integer(&self, input: InputName) -> Result<Option<i64>, InputError> {
        let whole = |value: &Value| {
            let float = value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15);
            value.as_i64().or(float.map(|float| float as i64))
        };
        let read =
            |(name, value): (&str, &Value)| whole(value).ok_or(wrong(name, "an integer", value));
        self.value(input)?.map(read).transpose()
    }

    /// An integer that is off when it is not positive.
    fn count(&self, input: InputName) -> Result<Option<u32>, InputError> {
        Ok(self
            .integer(input)?
            .filter(|count| *count > 0)
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    fn top_k(&self) -> Result<Option<u32>, InputError> {
        match self.value(InputName::TopK)? {
            None => Ok(Some(50)),
            Some(_) => self.count(InputName::TopK),
        }
    }

    fn stop(&self) -> Result<Vec<String>, InputError> {
        let Some((name, value)) = self.value(InputName::StopSequences)? else {
            return Ok(Vec::new());
        };
        let wrong = || wrong(name, "a string or a list of strings", value);
        let all: Vec<&str> = match value {
            Value::String(text) => text.split(',').collect(),
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().ok_or_else(wrong))
                .collect::<Result<_, _>>()?,
            _ => return Err(wrong()),
        };
        Ok(all.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect())
    }
}

fn wrong(name: &str, wanted: &'static str, value: &Value) -> InputError {
    InputError::Type(name.to_owned(), wanted, value.to_string())
}

fn twice(input: InputName, first: (&str, &Value), second: (&str, &Value)) -> InputError {
    let error = match input {
        InputName::MinTokens => InputError::MinTokens,
        InputName::MaxTokens => InputError::MaxTokens,
        _ => InputError::Twice,
    };
    error(first.0.to_owned(), first.1.to_string(), second.0.to_owned(), second.1.to_string())
}
