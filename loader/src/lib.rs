//! From a package on disk, or in the binary, to weights, tokenizer and template.

mod error;
pub mod files;
pub mod gguf;
pub mod limits;
mod load;
pub mod metadata;
mod progress;
mod quiet;
mod resolve;
pub mod snapshot;
pub mod source;
pub mod starter;
pub mod template;
#[cfg(test)]
mod testing;
pub mod tokenizer;

pub use error::LoadError;
pub use files::{FileError, PackageFiles};
pub use gguf::{Gguf, GgufSource};
pub use limits::LIMITS;
pub use load::{LoadOptions, LoadedPackage, load, load_resolved};
pub use metadata::GenerationDefaults;
pub use progress::{Progress, ProgressFn, silent};
pub use resolve::{
    Decision, MANIFEST, NativePackage, ResolvedPackage, decide, inspect, read_manifest,
};
pub use source::{CheckpointSource, SafetensorsSource, WeightsError};
pub use template::{ChatTemplate, RenderInput, TemplateError};
pub use tokenizer::{PackageTokenizer, TokenizerError};
