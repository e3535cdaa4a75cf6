//! What a Llama-like `config.json` says, validated.

use candle_core::{Result, bail};
use serde::Deserialize;

use crate::ModelConfig;
use crate::config::TensorShape;
use crate::layers::{RopeConfig, RopeFields};

/// What the class in transformers fixes and a config cannot say.
#[derive(Debug)]
pub(crate) struct Family {
    attention_bias: Bias,
    mlp_bias: Bias,
    qk_norm: bool,
    head_dim: Option<usize>,
    windows: Windows,
}

#[derive(Debug)]
enum Bias {
    Never,
    Configured,
    QueryKeyValue,
}

#[derive(Debug)]
enum Windows {
    Never,
    /// On all layers, this wide unless the config says otherwise.
    Every(usize),
    ByLayer,
}

pub(crate) const LLAMA: Family = Family {
    attention_bias: Bias::Configured,
    mlp_bias: Bias::Configured,
    qk_norm: false,
    head_dim: None,
    windows: Windows::Never,
};
pub(crate) const MISTRAL: Family = Family {
    attention_bias: Bias::Never,
    mlp_bias: Bias::Never,
    windows: Windows::Every(4096),
    ..LLAMA
};
pub(crate) const QWEN2: Family =
    Family { attention_bias: Bias::QueryKeyValue, windows: Windows::ByLayer, ..MISTRAL };
pub(crate) const QWEN3: Family =
    Family { attention_bias: Bias::Configured, qk_norm: true, head_dim: Some(128), ..QWEN2 };

/// Sizes that are valid together.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_heads: usize,
    pub(crate) num_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) max_model_len: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) tie_word_embeddings: bool,
    pub(crate) qk_norm: bool,
    pub(crate) biases: Biases,
    /// One a layer: the tokens it sees, if it slides.
    pub(crate) windows: Vec<Option<usize>>,
    pub(crate) rope: RopeConfig,
}

/// Which linears have one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Biases {
    pub(crate) qkv: bool,
    pub(crate) o: bool,
    pub(crate) mlp: bool,
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
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// Sizes beyond this are taken for a damaged file; no model comes near.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;

impl Config {
    pub(crate) fn new(config: &ModelConfig, family: &Family) -> Result<Self> {
        let fields: Fields = config.read()?;
        let rope = RopeConfig::try_from(config.read::<RopeFields>()?)?;
        check("num_hidden_layers", fields.num_hidden_layers, MAX_LAYERS)?;
        check("vocab_size", fields.vocab_size, MAX_SIZE)?;
        check("hidden_size", fields.hidden_size, MAX_SIZE)?;
        check("intermediate_size", fields.intermediate_size, MAX_SIZE)?;
        let (num_heads, num_kv_heads, head_dim) = fields.heads(family)?;
        let rms_norm_eps = fields.rms_norm_eps.unwrap_or(1e-6);
        if !(0.0..=1.0).contains(&rms_norm_eps) {
            bail!("config.json: rms_norm_eps is out of range: {rms_norm_eps}")
        }
        if let Some(act) =
            fields.hidden_act.as_deref().filter(|act| !["silu", "swish"].contains(act))
        {
            bail!("config.json: hidden_act `{act}` is not supported, supported are: silu")
        }
        Ok(Self {
            vocab_size: fields.vocab_size,
            hidden_size: fields.hidden_size,
            intermediate_size: fields.intermediate_size,
            num_heads,
            num_kv_heads,
            head_dim,
            max_model_len: rope.max_model_len(config.max_model_len())?,
            rms_norm_eps,
            tie_word_embeddings: fields.tie_word_embeddings.unwrap_or(false),
            qk_norm: family.qk_norm,
            biases: fields.biases(family),
            windows: fields.windows(family, config.has("sliding_window"))?,
            rope,
        })
    }

    /// Width of all query heads together.
    pub(crate) fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Width of all key heads together.
    pub(crate) fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    pub(crate) fn tensors(&self) -> Vec<TensorShape> {
        let (hidden, vocab) = (self.hidden_size, self.vocab_size);
        let mut list = List::default();
        list.add("model.embed_tokens.weight", &[vocab, hidden]);
        for index in 0..self.windows.len() {
            self.layer_tensors(index, &mut list);
        }
        list.add("model.norm.weight", &[hidden]);
        if !self.tie_word_embeddings {
            list.add("lm_head.weight", &[vocab, hidden]);
        }
        list.0
    }

    fn layer_tensors(&self, index: usize, list: &mut List) {
        let (hidden, ff, q, kv) =
            (self.hidden_size, self.intermediate_size, self.q_dim(), self.kv_dim());
        let at = |name: &str| format!("model.layers.{index}.{name}");
        list.add(at("input_layernorm.weight"), &[hidden]);
        for (name, out_dim) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            list.linear(&at(&format!("self_attn.{name}")), out_dim, hidden, self.biases.qkv);
        }
        if self.qk_norm {
            list.add(at("self_attn.q_norm.weight"), &[self.head_dim]);
            list.add(at("self_attn.k_norm.weight"), &[self.head_dim]);
        }
        list.linear(&at("self_attn.o_proj"), hidden, q, self.biases.o);
        list.add(at("post_attention_layernorm.weight"), &[hidden]);
        list.linear(&at("mlp.gate_proj"), ff, hidden, self.biases.mlp);
        list.linear(&at("mlp.up_proj"), ff, hidden, self.biases.mlp);
        list.linear(&at("mlp.down_proj"), hidden, ff, self.biases.mlp);
    }
}

impl Fields {
    /// Query heads, key/value heads, and their width.
    fn heads(&self, family: &Family) -> Result<(usize, usize, usize)> {
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        check("num_attention_heads", heads, MAX_SIZE)?;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        check("num_key_value_heads", kv_heads, MAX_SIZE)?;
        if !heads.is_multiple_of(kv_heads) {
            bail!(
                "config.json: num_key_value_heads must divide num_attention_heads: \
                 {kv_heads} of {heads}"
            )
        }
        let head_dim = match self.head_dim.or(family.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => bail!(
                "config.json: num_attention_heads must divide hidden_size where there is no \
                 head_dim: {heads} of {hidden}"
            ),
        };
        check("head_dim", head_dim, MAX_SIZE)?;
        if MAX_SIZE < heads.saturating_mul(head_dim) {
            bail!("config.json: {heads} heads of {head_dim} are out of range")
        }
        if !head_dim.is_multiple_of(2) {
            bail!("config.json: rotary positions need an even head_dim: {head_dim}")
        }
        Ok((heads, kv_heads, head_dim))
    }

    fn biases(&self, family: &Family) -> Biases {
        let configured = self.attention_bias.unwrap_or(false);
        let (qkv, o) = match family.attention_bias {
            Bias::Never => (false, false),
            Bias::Configured => (configured, configured),
            Bias::QueryKeyValue => (true, false),
        };
        let mlp = matches!(family.mlp_bias, Bias::Configured) && self.mlp_bias == Some(true);
        Biases { qkv, o, mlp }
    }

    /// The window of each layer.
    fn windows(&self, family: &Family, window_given: bool) -> Result<Vec<Option<usize>>> {
        let layers = self.num_hidden_layers;
        let window = match family.windows {
            Windows::Never => None,
            Windows::Every(default) => {
                if window_given {
                    self.sliding_window
                } else {
                    Some(default)
                }
            }
            Windows::ByLayer if self.use_sliding_window != Some(true) => None,
            Windows::ByLayer => {
                if window_given {
                    self.sliding_window
                } else {
                    Some(4096)
                }
            }
        };
        if window == Some(0) {
            bail!("config.json: sliding_window must be at least 1: 0")
        }
        if !matches!(family.windows, Windows::ByLayer) {
            return Ok(vec![window; layers]);
        }
        let Some(types) = &self.layer_types else {
            let first = self.max_window_layers.unwrap_or(28);
            return Ok((0..layers).map(|i| window.filter(|_| first <= i)).collect());
        };
        if types.len() != layers {
            bail!("config.json: layer_types has {} entries for {layers} layers", types.len())
        }
        types.iter().map(|kind| window_of(kind, window)).collect()
    }
}

fn window_of(layer_type: &str, window: Option<usize>) -> Result<Option<usize>> {
    match layer_type {
        "full_attention" => Ok(None),
        "sliding_attention" if window.is_some() => Ok(window),
        "sliding_attention" => bail!("config.json: a layer slides but there is no sliding_window"),
        other => bail!("config.json: layer type `{other}` is not supported"),
    }
}

#[derive(Default)]
struct List(Vec<TensorShape>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(TensorShape { name: name.into(), shape: shape.to_vec() });
    }

    fn linear(&mut self, name: &str, out_dim: usize, in_dim: usize, bias: bool) {
        self.add(format!("{name}.weight"), &[out_dim, in_dim]);
        if bias {
            self.add(format!("{name}.bias"), &[out_dim]);
        }
    }
}

fn check(name: &str, value: usize, max: usize) -> Result<()> {
    if value == 0 || max < value {
        bail!("config.json: {name} is out of range: {value}")
    }
    Ok(())
}
