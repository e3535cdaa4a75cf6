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

/// A tensor that a checkpoint must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TensorShape {
    /// Full name.
    pub name: String,
    /// Dimensions as stored; `[out, in]` for linears.
    pub shape: Vec<usize>,
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

    /// The longest sequence asked for, if one was.
    pub fn max_model_len(&self) -> Option<usize> {
        self.max_model_len
    }

    /// Every tensor that the model reads, in the order in which it reads them.
    ///
    /// # Errors
    /// As [`build`](crate::build) for a config that cannot be built.
    pub fn tensors(&self) -> Result<Vec<TensorShape>> {
        let weights = Weights::listing();
        registry::plan(self)?.build(&weights)?;
        Ok(weights.listed())
    }

    /// Weights of the model; tied ones count once.
    ///
    /// # Errors
    /// As [`build`](crate::build) for a config that cannot be built.
    pub fn num_parameters(&self) -> Result<u64> {
        num_parameters(&self.tensors()?)
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

/// Elements of all tensors together.
pub(crate) fn num_parameters(tensors: &[TensorShape]) -> Result<u64> {
    let elements = |shape: &[usize]| {
        shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))
    };
    tensors
        .iter()
        .try_fold(0u64, |sum, tensor| sum.checked_add(elements(&tensor.shape)?))
        .ok_or_else(|| Error::Msg("config.json: the model has more than 2^64 weights".to_owned()))
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn invalid(error: serde_json::Error) -> Error {
    Error::Msg(format!("config.json: {error}"))
}
