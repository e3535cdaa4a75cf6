//! Why a package cannot be loaded.

use pinion_cog_compat::Diagnostic;
use pinion_kernels::WeightType;
use thiserror::Error;

use crate::files::FileError;
use crate::metadata::MetadataError;
use crate::source::WeightsError;
use crate::template::TemplateError;
use crate::tokenizer::TokenizerError;

/// A package that cannot be loaded, and why.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory is no package.
    #[error("no cog.yaml in {package}")]
    ManifestMissing {
        /// The directory.
        package: String,
    },
    /// `cog.yaml` has errors.
    #[error("cog.yaml is invalid: {}", first(.0))]
    Manifest(Vec<Diagnostic>),
    /// Its weights would have to be fetched.
    #[error("fetching weights is not supported yet: {uri}")]
    RemoteWeights {
        /// As `cog.yaml` names them.
        uri: String,
    },
    /// A local weights source that does not exist.
    #[error("weights are not in the package: {uri}")]
    SourceMissing {
        /// As `cog.yaml` names them.
        uri: String,
    },
    /// The package has a runner, so it is not weights to be loaded.
    #[error("package is not served natively: {reason}")]
    NotNative {
        /// Why not.
        reason: String,
    },
    /// There are weights and nothing that says of what.
    #[error("config.json is missing: {file}")]
    ConfigMissing {
        /// Where it should be.
        file: String,
    },
    /// `config.json` cannot be used.
    #[error("config.json is invalid: {reason}: {file}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// No code for this model.
    #[error("architecture `{architecture}` is not supported, supported are: {supported}")]
    Architecture {
        /// As `config.json` names it.
        architecture: String,
        /// Those that are.
        supported: String,
    },
    /// A stored quantization that is not read.
    #[error("weights quantized with `{method}` are not supported yet")]
    Quantization {
        /// As `config.json` names it.
        method: String,
    },
    /// A type that weights cannot be kept as.
    #[error("dtype is not supported yet: {dtype}, supported are: {}", dtypes())]
    Dtype {
        /// As given.
        dtype: String,
    },
    /// Quantized weights that would be quantized again.
    #[error("weights are stored as {stored} and are not quantized again: {wanted}")]
    Requantize {
        /// What most matrices are stored as.
        stored: String,
        /// What was asked for.
        wanted: String,
    },
    /// Another small file beside the weights.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The weights are those of another model than `config.json` describes.
    #[error("weights do not fit config.json: {first}{}", and_more(*.others))]
    Mismatch {
        /// The first tensor that is wrong, and how.
        first: String,
        /// How many more there are.
        others: usize,
    },
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The model could not be built.
    #[error("model cannot be built: {reason}")]
    Build {
        /// What went wrong.
        reason: String,
    },
}

impl LoadError {
    /// A stable name of the cause.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::ManifestMissing { .. } => "manifest_missing",
            Self::Manifest(_) => "manifest_invalid",
            Self::RemoteWeights { .. } => "remote_weights_not_supported",
            Self::SourceMissing { .. } => "weights_missing",
            Self::NotNative { .. } => "not_native",
            Self::ConfigMissing { .. } => "config_missing",
            Self::Config { .. } => "config_invalid",
            Self::Architecture { .. } => "architecture_not_supported",
            Self::Quantization { .. } => "quantization_not_supported",
            Self::Dtype { .. } => "dtype_not_supported",
            Self::Requantize { .. } => "weights_quantized_already",
            Self::Metadata(e) => e.code(),
            Self::Weights(e) => e.code(),
            Self::Mismatch { .. } => "weights_do_not_fit_config",
            Self::Tokenizer(e) => e.code(),
            Self::Template(e) => e.code(),
            Self::Build { .. } => "model_not_buildable",
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::File(e) => e.hint(),
            Self::ManifestMissing { .. } => {
                Some("a package is a directory with a cog.yaml; `pinion init` writes one")
            }
            Self::Manifest(all) => all.iter().find(|d| d.is_error())?.hint.as_deref(),
            Self::RemoteWeights { .. } => Some(
                "download the files into the package and name their directory: `source: {uri: ./weights}`",
            ),
            Self::SourceMissing { .. } => {
                Some("paths in `weights:` are relative to the directory of cog.yaml")
            }
            Self::NotNative { .. } => {
                Some("set `pinion.backend: native` to serve its weights without its Python")
            }
            Self::ConfigMissing { .. } => {
                Some("add the config.json that came with the weights (Hugging Face layout)")
            }
            Self::Config { .. } | Self::Mismatch { .. } => {
                Some("take config.json and the weights from the same revision of the model")
            }
            Self::Quantization { .. } => Some("use the model's unquantized weights"),
            Self::Dtype { .. } => Some("set `pinion.dtype` or --dtype to one of them"),
            Self::Requantize { .. } => {
                Some("leave `pinion.dtype` and --dtype out, or take the model's original weights")
            }
            Self::Metadata(e) => e.hint(),
            Self::Weights(e) => e.hint(),
            Self::Tokenizer(e) => e.hint(),
            Self::Template(e) => e.hint(),
            Self::Architecture { .. } => {
                Some("give the package a `run:` to serve it with its own Python, in a container")
            }
            Self::Build { .. } => None,
        }
    }
}

/// Names of all types that weights can be kept as.
fn dtypes() -> String {
    let names: Vec<&str> = WeightType::ALL.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

fn first(diagnostics: &[Diagnostic]) -> String {
    let mut errors = diagnostics.iter().filter(|d| d.is_error());
    let Some(first) = errors.next() else { return "unknown reason".to_owned() };
    let place = format!("line {}, column {}", first.line, first.column);
    format!("{place}: {}{}", first.message, and_more(errors.count()))
}

fn and_more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}
