//! A parsed `config.json`.

use candle_core::{Error, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Weights, registry};

/// A parsed `config.json`: the architecture, and what the architecture makes of the rest.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    architecture: String,
    quant_method: Option<String>,
    max_model_len: Option<usize>,
    raw: serde_json::Value,
}

/// What a checkpoint holds in a tensor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TensorKind {
    /// Numbers: f32, f16 or bf16.
    Floats,
    /// Bytes of a format of its own.
    Bytes,
}

/// A tensor that a checkpoint must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorShape {
    /// Full name.
    pub name: String,
    /// Dimensions as stored; `[out, in]` for linears.
    pub shape: Vec<usize>,
    /// What its elements are.
    pub kind: TensorKind,
    /// The name that other checkpoints of the architecture give it.
    pub alias: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    quantization_config: Option<QuantHead>,
}

#[derive(Deserialize)]
struct QuantHead {
    #[serde(default)]
    quant_method: Option<String>,
}

impl ModelConfig {
    /// Reads the part every checkpoint has.
    ///
    /// # Errors
    /// When the text is no JSON object or names no architecture.
    pub fn parse(json: &str) -> Result<Self> {
        let raw: serde_json::Value = serde_json::from_str(json).map_err(invalid)?;
        let head = Head::deserialize(&raw).map_err(invalid)?;
        let names = head.architectures.unwrap_or_default();
        let supported = names.iter().find(|name| registry::is_supported(name));
        let Some(architecture) = supported.or(names.first()).cloned() else {
            bail!("config.json names no architecture: `architectures` is missing or empty")
        };
        let quant_method = head
            .quantization_config
            .map(|quant| quant.quant_method.unwrap_or_else(|| "unnamed".to_owned()));
        Ok(Self { architecture, quant_method, max_model_len: None, raw })
    }

    /// Asks for sequences of at most this many tokens instead of what the config gives.
    #[must_use]
    pub fn with_max_model_len(self, max_model_len: Option<usize>) -> Self {
        Self { max_model_len, ..self }
    }

    /// The class that transformers would run, as in `architectures`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// `quantization_config.quant_method` of a checkpoint that is stored quantized.
    pub fn quant_method(&self) -> Option<&str> {
        self.quant_method.as_deref()
    }

    /// The same, unless the architecture reads such checkpoints.
    pub fn unsupported_quant_method(&self) -> Option<&str> {
        self.quant_method().filter(|method| !registry::reads_quantized(self.architecture(), method))
    }

    /// The longest sequence asked for, if one was.
    pub fn max_model_len(&self) -> Option<usize> {
        self.max_model_len
    }

    /// Every tensor that the model reads, in the order in which it reads them.
    ///
    /// # Errors
    /// As [`build`](crate::build) for a config that cannot be built.
    pub fn tensors(&self) -> Result<Vec<TensorShape>> {
        Ok(self.listing()?.listed())
    }

    /// Weights of the model; tied ones count once.
    ///
    /// # Errors
    /// As [`build`](crate::build) for a config that cannot be built.
    pub fn num_parameters(&self) -> Result<u64> {
        Ok(self.listing()?.num_parameters())
    }

    /// Weights that took notes of what the model reads.
    fn listing(&self) -> Result<Weights> {
        let weights = Weights::listing();
        registry::plan(self)?.build(&weights)?;
        Ok(weights)
    }

    /// The fields that an architecture knows.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.raw).map_err(invalid)
    }

    /// Whether the file has this field, be it `null`.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.raw.get(field).is_some()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn invalid(error: serde_json::Error) -> Error {
    Error::Msg(format!("config.json: {error}"))
}
