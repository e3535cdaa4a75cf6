//! What Cog promises to its users, as data and pure functions: `cog.yaml`, schemas, validation, the prediction envelope.
//!
//! Nothing here listens, reads a file or knows a clock: the server gives text, times and file contents in, and sends
//! what comes out.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod inputs;
pub mod manifest;
pub mod prediction;
pub mod schema;
pub mod validate;
mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use inputs::{GenerationInputs, InputError};
pub use manifest::Manifest;
pub use prediction::{PredictionRequest, PredictionState};
pub use schema::Schema;
pub use validate::InputValidator;
