//! The frame of every decoder: embedding, layers, output.
//!
//! An architecture fills it with its blocks; what is not in the frame it does not need.

use candle_core::Result;
use pinion_kernels::{Activations, ops};

use super::{Attention, Embedding, Experts, LatentAttention, Linear, Mlp, Norm, RmsNorm};
use crate::fields::Sizes;
use crate::{CausalLm, ForwardCtx, ModelSpec, Weights};

/// A decoder.
#[derive(Debug)]
pub struct Decoder {
    pub(crate) spec: ModelSpec,
    pub(crate) embed_tokens: Embedding,
    /// Added to the tokens, one row a position.
    pub(crate) positions: Option<Embedding>,
    /// What embedded tokens are multiplied by.
    pub(crate) embedding_scale: f32,
    pub(crate) layers: Vec<DecoderLayer>,
    pub(crate) norm: Norm,
    pub(crate) lm_head: Linear,
    /// What logits are multiplied by.
    pub(crate) logit_scale: f32,
    /// What logits are bent towards.
    pub(crate) logit_cap: Option<f32>,
}

/// Two blocks, each between norms, whose results are added to what goes through.
#[derive(Debug)]
pub struct DecoderLayer {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) attention: Mixer,
    /// Of the attention's result.
    pub(crate) attention_out_norm: Option<Norm>,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) mlp: FeedForward,
    /// Of the feed-forward block's result.
    pub(crate) mlp_out_norm: Option<Norm>,
    /// What results are multiplied by.
    pub(crate) residual_scale: f32,
    /// Whether both blocks read what comes in.
    pub(crate) parallel: bool,
}

/// The block that looks at other tokens.
#[derive(Debug)]
pub enum Mixer {
    /// Keys and values of their own.
    Attention(Attention),
    /// Keys and values that are expanded from a latent.
    Latent(LatentAttention),
}

/// The block that looks at one token.
#[derive(Debug)]
pub enum FeedForward {
    /// All of it.
    Dense(Mlp),
    /// A few of many.
    Experts(Experts),
}

impl DecoderLayer {
    /// A layer that normalizes what its blocks read.
    pub(crate) fn pre_norm(
        (attention_norm, attention): (impl Into<Norm>, Mixer),
        (mlp_norm, mlp): (impl Into<Norm>, FeedForward),
    ) -> Self {
        Self {
            attention_norm: Some(attention_norm.into()),
            attention,
            attention_out_norm: None,
            mlp_norm: Some(mlp_norm.into()),
            mlp,
            mlp_out_norm: None,
            residual_scale: 1.0,
            parallel: false,
        }
    }

    fn forward(&self, cx: &ForwardCtx<'_>, x: &mut Activations) -> Result<()> {
        if self.parallel {
            let (attention, mlp) =
                (of(self.attention_norm.as_ref(), x)?, of(self.mlp_norm.as_ref(), x)?);
            self.attend(cx, x, &attention)?;
            return self.feed(x, &mlp);
        }
        let h = of(self.attention_norm.as_ref(), x)?;
        self.attend(cx, x, &h)?;
        let h = of(self.mlp_norm.as_ref(), x)?;
        self.feed(x, &h)
    }

    fn attend(&self, cx: &ForwardCtx<'_>, x: &mut Activations, h: &Activations) -> Result<()> {
        let heads = self.attention.heads(cx, h)?;
        let o_proj = self.attention.o_proj();
        if self.adds_as_it_is(self.attention_out_norm.as_ref()) {
            return o_proj.add_to(x, &heads);
        }
        self.add(x, self.attention_out_norm.as_ref(), o_proj.forward(&heads)?)
    }

    fn feed(&self, x: &mut Activations, h: &Activations) -> Result<()> {
        let as_it_is = self.adds_as_it_is(self.mlp_out_norm.as_ref());
        match &self.mlp {
            FeedForward::Dense(mlp) if as_it_is => mlp.add_to(x, h),
            FeedForward::Dense(mlp) => self.add(x, self.mlp_out_norm.as_ref(), mlp.forward(h)?),
            FeedForward::Experts(experts) if as_it_is => experts.add_to(x, h),
            FeedForward::Experts(experts) => {
                let mut sums = Activations::zeros(h.rows(), h.width());
                experts.add_to(&mut sums, h)?;
                self.add(x, self.mlp_out_norm.as_ref(), sums)
            }
        }
    }

    #[expect(clippy::float_cmp, reason = "exactly one, as nearly all models have it")]
    fn adds_as_it_is(&self, norm: Option<&Norm>) -> bool {
        norm.is_none() && self.residual_scale == 1.0
    }

    fn add(&self, x: &mut Activations, norm: Option<&Norm>, result: Activations) -> Result<()> {
        let result = match norm {
            Some(norm) => norm.forward(&result)?,
            None => result,
        };
        ops::add_scaled(x, &result, self.residual_scale)
    }
}

/// What a block reads.
fn of(norm: Option<&Norm>, x: &Activations) -> Result<Activations> {
    norm.map_or_else(|| x.columns(0..x.width()), |norm| norm.forward(x))
}

impl Mixer {
    fn heads(&self, cx: &ForwardCtx<'_>, x: &Activations) -> Result<Activations> {
        match self {
            Self::Attention(attention) => attention.heads(cx, x),
            Self::Latent(attention) => attention.heads(cx, x),
        }
    }

    fn o_proj(&self) -> &Linear {
        match self {
            Self::Attention(attention) => &attention.o_proj,
            Self::Latent(attention) => &attention.o_proj,
        }
    }
}

impl Decoder {
    /// Reads a decoder whose outer names are Llama's; `norm` is what becomes of the last norm.
    pub(crate) fn read(
        sizes: &Sizes,
        weights: &Weights,
        layer: impl Fn(usize, &Weights) -> Result<DecoderLayer>,
        norm: impl Fn(RmsNorm) -> Result<RmsNorm>,
    ) -> Result<Self> {
        let model = weights.at("model");
        let embed_tokens = model.embedding("embed_tokens", sizes.vocab_size, sizes.hidden_size)?;
        let layers = (0..sizes.num_layers)
            .map(|index| layer(index, &model.at("layers").at(index)))
            .collect::<Result<Vec<_>>>()?;
        let norm = norm(model.rms_norm("norm", sizes.hidden_size, sizes.norm_eps)?)?;
        let lm_head = if sizes.tie_word_embeddings {
            embed_tokens.tied_linear()
        } else {
            weights.linear("lm_head", sizes.hidden_size, sizes.vocab_size, false)?
        };
        Ok(Self::new(sizes, weights, (embed_tokens, layers), norm, lm_head))
    }

    /// A decoder that does nothing to embedded tokens and logits.
    pub(crate) fn new(
        sizes: &Sizes,
        weights: &Weights,
        (embed_tokens, layers): (Embedding, Vec<DecoderLayer>),
        norm: impl Into<Norm>,
        lm_head: Linear,
    ) -> Self {
        let spec = ModelSpec {
            num_layers: layers.len(),
            num_kv_heads: sizes.num_kv_heads,
            head_dim: sizes.head_dim,
            vocab_size: sizes.vocab_size,
            max_model_len: sizes.max_model_len,
            num_parameters: weights.num_parameters(),
            weight_bytes: weights.weight_bytes(),
        };
        Self {
            spec,
            embed_tokens,
            positions: None,
            embedding_scale: 1.0,
            layers,
            norm: norm.into(),
            lm_head,
            logit_scale: 1.0,
            logit_cap: None,
        }
    }
}

impl CausalLm for Decoder {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    #[expect(clippy::float_cmp, reason = "exactly one, as nearly all models have it")]
    fn forward(&self, cx: &ForwardCtx<'_>) -> Result<Activations> {
        let mut x = self.embed_tokens.forward(&cx.batch.input_ids)?;
        if self.embedding_scale != 1.0 {
            ops::scale(&mut x, self.embedding_scale);
        }
        if let Some(positions) = &self.positions {
            ops::add_scaled(&mut x, &positions.forward(&cx.batch.positions)?, 1.0)?;
        }
        for layer in &self.layers {
            layer.forward(cx, &mut x)?;
        }
        let x = self.norm.forward(&ops::select_rows(&x, &cx.batch.logits_indices)?)?;
        let mut logits = self.lm_head.forward(&x)?;
        if self.logit_scale != 1.0 {
            ops::scale(&mut logits, self.logit_scale);
        }
        if let Some(cap) = self.logit_cap {
            ops::soft_cap(&mut logits, cap);
        }
        Ok(logits)
    }
}
