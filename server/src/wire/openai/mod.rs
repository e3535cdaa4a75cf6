//! OpenAI's chat completions and completions: requests, answers, streams, errors.

mod answer;
mod chat;
mod choice;
mod chunk;
mod completion;
mod error;
mod logprobs;
mod messages;
mod request;
mod sampling;
mod usage;

pub(crate) use answer::Answer;
pub(crate) use chat::chat_prompt;
pub(crate) use choice::Meta;
pub(crate) use chunk::ChunkWriter;
pub(crate) use error::{OpenAiError, error_body};
pub(crate) use request::{GenerateRequest, Kind, StreamOptions, Submission, refuse_unsupported};
pub(crate) use sampling::first_word;
