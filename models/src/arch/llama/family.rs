//! The families that share Llama's frame, and what sets them apart.

use super::mixture;
use crate::fields::SizeDefaults;
use crate::layers::RopeDefaults;

/// What the class in transformers fixes and a config cannot say.
#[derive(Debug)]
pub(crate) struct Family {
    pub(super) attention_bias: Bias,
    pub(super) mlp_bias: Bias,
    pub(super) qk_norm: QkNorm,
    pub(super) sizes: SizeDefaults,
    pub(super) rope: RopeDefaults,
    /// Whether only longrope may change the angles.
    pub(super) longrope_only: bool,
    pub(super) windows: Windows,
    /// Whether some layers know no positions.
    pub(super) no_rope_layers: bool,
    pub(super) multipliers: bool,
    pub(super) experts: Option<mixture::Kind>,
    pub(super) names: Names,
    pub(super) norms: Norms,
}

#[derive(Debug)]
pub(super) enum Bias {
    Never,
    Configured,
    QueryKeyValue,
    /// The same, unless `qkv_bias` is off.
    QueryKeyValueConfigured,
}

/// What queries and keys are normalized over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum QkNorm {
    Never,
    Head,
    /// All heads of a token together.
    Row,
}

/// How a checkpoint stores linears with one input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    Apart,
    Fused,
}

/// What is normalized: what blocks read, or what they give.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Norms {
    Before,
    After,
}

#[derive(Debug)]
pub(super) enum Windows {
    Never,
    /// On all layers, this wide unless the config says otherwise.
    Every(Option<usize>),
    ByLayer,
    /// On all layers if `use_sliding_window` is on.
    EveryIfUsed,
    /// On every other layer of the first ones, likewise.
    Alternating,
    /// On those that `layer_types` names, or on those without positions.
    ByType,
}

pub(crate) const LLAMA: Family = Family {
    attention_bias: Bias::Configured,
    mlp_bias: Bias::Configured,
    qk_norm: QkNorm::Never,
    sizes: SizeDefaults::PLAIN,
    rope: RopeDefaults::theta(10_000.0),
    longrope_only: false,
    windows: Windows::Never,
    no_rope_layers: false,
    multipliers: false,
    experts: None,
    names: Names::Apart,
    norms: Norms::Before,
};
pub(crate) const MISTRAL: Family = Family {
    attention_bias: Bias::Never,
    mlp_bias: Bias::Never,
    windows: Windows::Every(Some(4096)),
    ..LLAMA
};
pub(crate) const QWEN2: Family =
    Family { attention_bias: Bias::QueryKeyValue, windows: Windows::ByLayer, ..MISTRAL };
pub(crate) const QWEN3: Family = Family {
    attention_bias: Bias::Configured,
    qk_norm: QkNorm::Head,
    sizes: SizeDefaults { head_dim: Some(128), ..LLAMA.sizes },
    ..QWEN2
};
pub(crate) const PHI3: Family = Family {
    attention_bias: Bias::Never,
    mlp_bias: Bias::Never,
    sizes: SizeDefaults { norm_eps: 1e-5, ..LLAMA.sizes },
    rope: RopeDefaults { theta: 10_000.0, partial: Some(1.0), original: Some(4096) },
    longrope_only: true,
    windows: Windows::Every(None),
    names: Names::Fused,
    ..LLAMA
};
pub(crate) const OLMO2: Family = Family {
    mlp_bias: Bias::Never,
    qk_norm: QkNorm::Row,
    sizes: SizeDefaults { norm_eps: 1e-5, ..LLAMA.sizes },
    norms: Norms::After,
    ..LLAMA
};
pub(crate) const GRANITE: Family = Family { multipliers: true, ..LLAMA };
pub(crate) const MIXTRAL: Family = Family {
    sizes: SizeDefaults { norm_eps: 1e-5, ..LLAMA.sizes },
    rope: RopeDefaults::theta(1_000_000.0),
    windows: Windows::Every(None),
    experts: Some(mixture::Kind::Mixtral),
    ..MISTRAL
};
pub(crate) const QWEN2_MOE: Family = Family {
    attention_bias: Bias::QueryKeyValueConfigured,
    windows: Windows::Alternating,
    experts: Some(mixture::Kind::Qwen2),
    ..QWEN2
};
pub(crate) const QWEN3_MOE: Family = Family {
    sizes: LLAMA.sizes,
    windows: Windows::EveryIfUsed,
    experts: Some(mixture::Kind::Qwen3),
    ..QWEN3
};
pub(crate) const SMOLLM3: Family = Family {
    sizes: SizeDefaults { tie_word_embeddings: true, ..LLAMA.sizes },
    rope: RopeDefaults::theta(2_000_000.0),
    windows: Windows::ByType,
    no_rope_layers: true,
    ..LLAMA
};
