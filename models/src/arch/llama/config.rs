//! What a Llama-like `config.json` says, validated.

use candle_core::{Result, bail};
use serde::Deserialize;

use super::family::{Bias, Family, Names, Norms, QkNorm, Windows};
use super::mixture::Mixture;
use crate::ModelConfig;
use crate::fields::{self, Sizes, check_window, windows_of_types};
use crate::layers::{Activation, RopeConfig, RopeFields};

/// What is valid together.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) sizes: Sizes,
    pub(crate) qk_norm: QkNorm,
    pub(crate) biases: Biases,
    /// One a layer: the tokens it sees, if it slides.
    pub(crate) windows: Vec<Option<usize>>,
    /// One a layer: whether it knows positions.
    pub(crate) rotated: Vec<bool>,
    pub(crate) rope: RopeConfig,
    pub(crate) activation: Activation,
    pub(crate) multipliers: Multipliers,
    pub(crate) mixture: Option<Mixture>,
    pub(crate) names: Names,
    pub(crate) norms: Norms,
}

/// Which linears have one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Biases {
    pub(crate) qkv: bool,
    pub(crate) o: bool,
    pub(crate) mlp: bool,
}

/// Constants that values are multiplied by on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multipliers {
    pub(crate) embedding: f32,
    pub(crate) attention: Option<f32>,
    pub(crate) residual: f32,
    pub(crate) logits: f32,
}

#[derive(Deserialize)]
struct Fields {
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    qkv_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    no_rope_layers: Option<Vec<usize>>,
    no_rope_layer_interval: Option<usize>,
    embedding_multiplier: Option<f64>,
    attention_multiplier: Option<f64>,
    residual_multiplier: Option<f64>,
    logits_scaling: Option<f64>,
}

impl Config {
    pub(crate) fn new(config: &ModelConfig, family: &Family) -> Result<Self> {
        let fields: Fields = config.read()?;
        let rope = config.read::<RopeFields>()?.resolve(family.rope)?;
        if family.longrope_only && !rope.is_plain_or_longrope() {
            bail!("config.json: the rope type of this architecture must be longrope")
        }
        let sizes = Sizes::read(config, family.sizes, &rope)?;
        let act = fields.hidden_act.as_deref().unwrap_or("silu");
        let rotated = fields.rotated(family, sizes.num_layers)?;
        let given = config.has("sliding_window");
        let activation = Activation::parse("hidden_act", act, &["silu", "swish"])?;
        let mixture = |kind| Mixture::read(config, kind, &sizes, activation);
        Ok(Self {
            qk_norm: family.qk_norm,
            biases: fields.biases(family),
            windows: fields.windows(family, given, &rotated)?,
            activation,
            mixture: family.experts.map(mixture).transpose()?,
            multipliers: fields.multipliers(family)?,
            names: family.names,
            norms: family.norms,
            sizes,
            rotated,
            rope,
        })
    }
}

impl Fields {
    fn biases(&self, family: &Family) -> Biases {
        let configured = self.attention_bias.unwrap_or(false);
        let (qkv, o) = match family.attention_bias {
            Bias::Never => (false, false),
            Bias::Configured => (configured, configured),
            Bias::QueryKeyValue => (true, false),
            Bias::QueryKeyValueConfigured => (self.qkv_bias.unwrap_or(true), false),
        };
        let mlp = matches!(family.mlp_bias, Bias::Configured) && self.mlp_bias == Some(true);
        Biases { qkv, o, mlp }
    }

    fn multipliers(&self, family: &Family) -> Result<Multipliers> {
        let of = |name, value: Option<f64>| match value.filter(|_| family.multipliers) {
            Some(value) => fields::positive(name, value),
            None => Ok(1.0),
        };
        let attention = of("attention_multiplier", self.attention_multiplier)?;
        Ok(Multipliers {
            embedding: of("embedding_multiplier", self.embedding_multiplier)?,
            attention: family.multipliers.then_some(attention),
            residual: of("residual_multiplier", self.residual_multiplier)?,
            logits: 1.0 / of("logits_scaling", self.logits_scaling)?,
        })
    }

    /// Which layers know positions.
    fn rotated(&self, family: &Family, num_layers: usize) -> Result<Vec<bool>> {
        if !family.no_rope_layers {
            return Ok(vec![true; num_layers]);
        }
        if let Some(layers) = &self.no_rope_layers {
            if layers.len() != num_layers {
                let found = layers.len();
                bail!("config.json: no_rope_layers has {found} entries for {num_layers} layers")
            }
            return Ok(layers.iter().map(|&rotated| rotated != 0).collect());
        }
        let interval = self.no_rope_layer_interval.unwrap_or(4);
        fields::check("no_rope_layer_interval", interval, usize::MAX)?;
        Ok((1..=num_layers).map(|layer| !layer.is_multiple_of(interval)).collect())
    }

    /// The window of each layer.
    fn windows(
        &self,
        family: &Family,
        given: bool,
        rotated: &[bool],
    ) -> Result<Vec<Option<usize>>> {
        let layers = rotated.len();
        let or = |default| if given { self.sliding_window } else { default };
        let used = self.use_sliding_window == Some(true);
        let window = check_window(match family.windows {
            Windows::Every(default) => or(default),
            Windows::ByLayer | Windows::EveryIfUsed | Windows::Alternating if used => {
                or(Some(4096))
            }
            Windows::ByType if used || self.layer_types.is_some() => self.sliding_window,
            _ => None,
        })?;
        match (&family.windows, &self.layer_types) {
            (Windows::Never | Windows::Every(_) | Windows::EveryIfUsed, _) => {
                Ok(vec![window; layers])
            }
            (_, Some(types)) => windows_of_types(types, layers, window),
            (Windows::ByType, None) => {
                Ok(rotated.iter().map(|rotated| window.filter(|_| !rotated)).collect())
            }
            (Windows::Alternating, None) => {
                let end = self.max_window_layers.unwrap_or(28);
                let slides = |i: usize| i.is_multiple_of(2) && i < end;
                Ok((0..layers).map(|i| window.filter(|_| slides(i))).collect())
            }
            (Windows::ByLayer, None) => {
                let first = self.max_window_layers.unwrap_or(28);
                Ok((0..layers).map(|i| window.filter(|_| first <= i)).collect())
            }
        }
    }
}
