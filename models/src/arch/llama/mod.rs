//! Llama, and the decoders that differ from it only in numbers: Mistral, Qwen2, Qwen3.

mod config;

use candle_core::{Result, Tensor};
use pinion_kernels::{Activations, ops};

use crate::config::{TensorShape, num_parameters};
use crate::layers::{Attention, Embedding, GatedMlp, Linear, RmsNorm, RotaryEmbedding};
use crate::registry::Plan;
use crate::{CausalLm, ForwardCtx, ModelConfig, ModelSpec, Weights};

use config::Config;
pub(crate) use config::{Family, LLAMA, MISTRAL, QWEN2, QWEN3};

struct Llama {
    spec: ModelSpec,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    rotary: RotaryEmbedding,
}

struct Layer {
    input_norm: RmsNorm,
    qkv_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    attention: Attention,
    o_proj: Linear,
    post_norm: RmsNorm,
    mlp: GatedMlp,
}

pub(crate) fn plan(config: &ModelConfig, family: &Family) -> Result<Box<dyn Plan>> {
    Ok(Box::new(Config::new(config, family)?))
}

impl Plan for Config {
    fn tensors(&self) -> Vec<TensorShape> {
        Config::tensors(self)
    }

    fn build(self: Box<Self>, weights: &Weights) -> Result<Box<dyn CausalLm>> {
        let rotary = RotaryEmbedding::new(&self.rope, self.head_dim, self.max_model_len)?;
        let model = weights.at("model");
        let embed_tokens = model.embedding("embed_tokens", self.vocab_size, self.hidden_size)?;
        let layers = (0..self.windows.len())
            .map(|i| layer(&self, i, &model.at("layers").at(i)))
            .collect::<Result<Vec<_>>>()?;
        let norm = model.rms_norm("norm", self.hidden_size, self.rms_norm_eps)?;
        let lm_head = if self.tie_word_embeddings {
            embed_tokens.tied_linear()
        } else {
            weights.linear("lm_head", self.hidden_size, self.vocab_size, false)?
        };
        let spec = ModelSpec {
            num_layers: layers.len(),
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            vocab_size: self.vocab_size,
            max_model_len: self.max_model_len,
            num_parameters: num_parameters(&self.tensors())?,
            weight_bytes: weights.weight_bytes(),
        };
        Ok(Box::new(Llama { spec, embed_tokens, layers, norm, lm_head, rotary }))
    }
}

fn layer(config: &Config, index: usize, weights: &Weights) -> Result<Layer> {
    let Config { hidden_size, head_dim, rms_norm_eps: eps, .. } = *config;
    let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
    let attn = weights.at("self_attn");
    let qkv = [("q_proj", q_dim), ("k_proj", kv_dim), ("v_proj", kv_dim)];
    let head_norm = |name| config.qk_norm.then(|| attn.rms_norm(name, head_dim, eps)).transpose();
    Ok(Layer {
        input_norm: weights.rms_norm("input_layernorm", hidden_size, eps)?,
        qkv_proj: attn.fused_linear("qkv_proj", &qkv, hidden_size, config.biases.qkv)?,
        q_norm: head_norm("q_norm")?,
        k_norm: head_norm("k_norm")?,
        attention: Attention {
            layer: index,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim,
            sliding_window: config.windows[index],
        },
        o_proj: attn.linear("o_proj", q_dim, hidden_size, config.biases.o)?,
        post_norm: weights.rms_norm("post_attention_layernorm", hidden_size, eps)?,
        mlp: GatedMlp::new(
            &weights.at("mlp"),
            hidden_size,
            config.intermediate_size,
            config.biases.mlp,
        )?,
    })
}

impl CausalLm for Llama {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&self, cx: &ForwardCtx<'_>) -> Result<Tensor> {
        let mut x = self.embed_tokens.forward(&cx.batch.input_ids)?;
        for layer in &self.layers {
            layer.forward(cx, &self.rotary, &mut x)?;
        }
        let x = self.norm.forward(&ops::select_rows(&x, &cx.batch.logits_indices)?)?;
        self.lm_head.forward(&x)?.into_tensor()
    }
}

impl Layer {
    fn forward(
        &self,
        cx: &ForwardCtx<'_>,
        rotary: &RotaryEmbedding,
        x: &mut Activations,
    ) -> Result<()> {
        let mut qkv = self.qkv_proj.forward(&self.input_norm.forward(x)?)?;
        let (q, k) = self.attention.query_and_key_heads();
        for (norm, heads) in [(&self.q_norm, q), (&self.k_norm, k)] {
            if let Some(norm) = norm {
                norm.forward_heads(&mut qkv, heads)?;
            }
        }
        self.attention.rotate(cx, rotary, &mut qkv)?;
        self.o_proj.add_to(x, &self.attention.forward(cx, &qkv)?)?;
        let h = self.post_norm.forward(x)?;
        self.mlp.add_to(x, &h)
    }
}
