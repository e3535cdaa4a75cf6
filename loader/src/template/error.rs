//! What can be wrong with a chat template, or with a chat for it.

use thiserror::Error;

/// A template that cannot be compiled, or a chat that it does not render.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The package has none.
    #[error("the package has no chat template")]
    Missing,
    /// It is longer than any real one.
    #[error("chat template has {size} bytes, and {limit} are allowed")]
    TooLarge {
        /// Bytes it has.
        size: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// It is not valid Jinja.
    #[error("chat template is invalid at line {line}: {reason}: {origin}")]
    Syntax {
        /// Where it comes from.
        origin: String,
        /// From 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// It is a list of templates without a default.
    #[error("no chat template is called `default`: {origin}")]
    NoDefault {
        /// Where the list comes from.
        origin: String,
    },
    /// `prompt_template` is not a valid format string.
    #[error("prompt_template is invalid: {reason}")]
    Format {
        /// What is wrong.
        reason: String,
    },
    /// The template itself refuses this chat.
    #[error("{message}")]
    Raised {
        /// Its own words.
        message: String,
    },
    /// The template used up its steps.
    #[error("chat template takes too many steps")]
    TooLong,
    /// The template wrote too much.
    #[error("chat template writes more than {limit} bytes")]
    OutputTooLarge {
        /// Bytes it may write.
        limit: usize,
    },
    /// The template failed.
    #[error("chat template failed at line {line}: {reason}")]
    Render {
        /// From 1; 0 where it is not known.
        line: usize,
        /// What the template engine said.
        reason: String,
    },
    /// The messages are no list.
    #[error("messages is not a list")]
    NotAList,
    /// A message that no template can be given.
    #[error("messages[{index}]: {reason}")]
    Message {
        /// From 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl TemplateError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "chat_template_missing",
            Self::TooLarge { .. }
            | Self::Syntax { .. }
            | Self::NoDefault { .. }
            | Self::Format { .. } => "chat_template_invalid",
            Self::Raised { .. } => "chat_refused_by_template",
            Self::TooLong | Self::OutputTooLarge { .. } => "chat_template_exceeds_limits",
            Self::Render { .. } => "chat_template_failed",
            Self::NotAList | Self::Message { .. } => "message_invalid",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some(
                "use /v1/completions, or give the package a chat template: `pinion.prompt_template` in cog.yaml, or chat_template.jinja beside the weights",
            ),
            Self::TooLarge { .. } | Self::Syntax { .. } | Self::NoDefault { .. } => {
                Some("set `pinion.prompt_template` in cog.yaml to use another template")
            }
            Self::Format { .. } => Some(
                "write {prompt} and, if wanted, {system_prompt}; double other braces, or write a Jinja template",
            ),
            Self::Raised { .. } => {
                Some("change the messages: the model's template does not accept them")
            }
            Self::TooLong | Self::OutputTooLarge { .. } => Some(
                "send fewer or shorter messages; if any chat fails, the template of this package is broken",
            ),
            Self::Render { .. } | Self::NotAList | Self::Message { .. } => None,
        }
    }

    /// Whether the caller's messages are at fault, rather than the package.
    pub fn is_callers(&self) -> bool {
        matches!(self, Self::Raised { .. } | Self::NotAList | Self::Message { .. })
    }
}

/// The message of a `raise_exception` on its way through the template engine.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);
