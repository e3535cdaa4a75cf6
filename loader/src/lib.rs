//! From a package on disk, or in the binary, to weights, tokenizer and template.

pub mod files;
pub mod limits;
pub mod metadata;
mod progress;
mod quiet;
pub mod source;
pub mod template;
pub mod tokenizer;

pub use files::{FileError, PackageFiles};
pub use limits::LIMITS;
pub use progress::{Progress, ProgressFn, silent};
pub use source::{SafetensorsSource, WeightsError};
pub use template::{ChatInput, ChatTemplate, TemplateError};
pub use tokenizer::{PackageTokenizer, TokenizerError};
