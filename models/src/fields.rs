//! The fields of `config.json` that most decoders have, validated.

use candle_core::{Result, bail};
use serde::Deserialize;

use crate::ModelConfig;
use crate::layers::RopeConfig;

/// Sizes beyond this are taken for a damaged file; no model comes near.
pub(crate) const MAX_SIZE: usize = 1 << 24;
pub(crate) const MAX_LAYERS: usize = 1 << 12;
/// In all layers together.
const MAX_EXPERTS: usize = 1 << 16;

/// Sizes that are valid together.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_layers: usize,
    pub(crate) num_heads: usize,
    pub(crate) num_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_model_len: usize,
    pub(crate) norm_eps: f64,
    pub(crate) tie_word_embeddings: bool,
}

/// What the class in transformers takes where a config says nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeDefaults {
    pub(crate) head_dim: Option<usize>,
    pub(crate) norm_eps: f64,
    pub(crate) tie_word_embeddings: bool,
    /// Whether queries may share keys.
    pub(crate) grouped: bool,
}

impl SizeDefaults {
    /// Those of Llama.
    pub(crate) const PLAIN: Self =
        Self { head_dim: None, norm_eps: 1e-6, tie_word_embeddings: false, grouped: true };
}

#[derive(Deserialize)]
struct Fields {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    layer_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
}

impl Sizes {
    /// Reads them.
    pub(crate) fn read(
        config: &ModelConfig,
        defaults: SizeDefaults,
        rope: &RopeConfig,
    ) -> Result<Self> {
        let fields: Fields = config.read()?;
        let (hidden, heads) = (fields.hidden_size, fields.num_attention_heads);
        check("hidden_size", hidden, MAX_SIZE)?;
        check("num_attention_heads", heads, MAX_SIZE)?;
        let head_dim = match fields.head_dim.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => bail!(
                "config.json: num_attention_heads must divide hidden_size where there is no \
                 head_dim: {heads} of {hidden}"
            ),
        };
        let norm_eps = fields.rms_norm_eps.or(fields.layer_norm_eps).unwrap_or(defaults.norm_eps);
        let sizes = Self {
            vocab_size: fields.vocab_size,
            hidden_size: hidden,
            intermediate_size: fields.intermediate_size,
            num_layers: fields.num_hidden_layers,
            num_heads: heads,
            num_kv_heads: fields.num_key_value_heads.filter(|_| defaults.grouped).unwrap_or(heads),
            head_dim,
            max_model_len: rope.max_model_len(config.max_model_len())?,
            norm_eps,
            tie_word_embeddings: fields.tie_word_embeddings.unwrap_or(defaults.tie_word_embeddings),
        };
        sizes.check()?;
        if !rope.rotary_dim(head_dim).is_multiple_of(2) || rope.rotary_dim(head_dim) == 0 {
            bail!("config.json: rotary positions need an even head_dim: {head_dim}")
        }
        Ok(sizes)
    }

    /// Refuses sizes that no model has.
    pub(crate) fn check(&self) -> Result<()> {
        check("num_hidden_layers", self.num_layers, MAX_LAYERS)?;
        check("vocab_size", self.vocab_size, MAX_SIZE)?;
        check("intermediate_size", self.intermediate_size, MAX_SIZE)?;
        let (heads, kv_heads, head_dim) = (self.num_heads, self.num_kv_heads, self.head_dim);
        check("num_key_value_heads", kv_heads, MAX_SIZE)?;
        if !heads.is_multiple_of(kv_heads) {
            bail!(
                "config.json: num_key_value_heads must divide num_attention_heads: \
                 {kv_heads} of {heads}"
            )
        }
        check("head_dim", head_dim, MAX_SIZE)?;
        if MAX_SIZE < heads.saturating_mul(head_dim) {
            bail!("config.json: {heads} heads of {head_dim} are out of range")
        }
        if !(0.0..=1.0).contains(&self.norm_eps) {
            bail!("config.json: rms_norm_eps is out of range: {}", self.norm_eps)
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub(crate) fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key heads together.
    pub(crate) fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }
}

/// Refuses a size that is zero or beyond `max`.
pub(crate) fn check(name: &str, value: usize, max: usize) -> Result<()> {
    if value == 0 || max < value {
        bail!("config.json: {name} is out of range: {value}")
    }
    Ok(())
}

/// Refuses experts that no model has; `num_layers` was checked.
pub(crate) fn check_experts(num_experts: usize, num_layers: usize) -> Result<()> {
    check("num_experts", num_experts, MAX_EXPERTS / num_layers)
}

/// Refuses a factor that is not above zero, or not finite.
pub(crate) fn positive(name: &str, value: f64) -> Result<f32> {
    if !(1e-9..=1e9).contains(&value) {
        bail!("config.json: {name} is out of range: {value}")
    }
    Ok(value as f32)
}

/// The window of each layer whose type is given: `window` where it slides.
pub(crate) fn windows_of_types(
    types: &[String],
    num_layers: usize,
    window: Option<usize>,
) -> Result<Vec<Option<usize>>> {
    if types.len() != num_layers {
        bail!("config.json: layer_types has {} entries for {num_layers} layers", types.len())
    }
    let of = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(None),
        "sliding_attention" if window.is_some() => Ok(window),
        "sliding_attention" => bail!("config.json: a layer slides but there is no sliding_window"),
        other => bail!("config.json: layer type `{other}` is not supported"),
    };
    types.iter().map(of).collect()
}

/// Refuses a window of nothing.
pub(crate) fn check_window(window: Option<usize>) -> Result<Option<usize>> {
    if window == Some(0) {
        bail!("config.json: sliding_window must be at least 1: 0")
    }
    Ok(window)
}
