//! The same weights through candle-transformers, which shares no model code with this crate.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, qwen2, qwen3};
use pinion_models::{ModelConfig, Weights, build, testing};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::harness::{Runner, argmax, backends, distinct, relative_error};

const NUM_TOKENS: usize = 24;

/// Logits of the last token of a text.
type Oracle = Box<dyn FnMut(&[u32]) -> Result<Tensor>>;

#[test]
fn llama_equals_candle_transformers() {
    check("LlamaForCausalLM", &json!({"num_key_value_heads": 2}), llama_oracle);
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 24});
    let changes = json!({"rope_scaling": scaling, "tie_word_embeddings": true});
    check("LlamaForCausalLM", &changes, llama_oracle);
}

#[test]
fn mistral_equals_candle_transformers() {
    check(
        "MistralForCausalLM",
        &json!({"num_key_value_heads": 1, "head_dim": 20}),
        |config, vb| {
            let mut model = mistral::Model::new(&serde_json::from_value(config).unwrap(), vb)?;
            Ok(Box::new(move |tokens| {
                model.clear_kv_cache();
                model.forward(&row(tokens)?, 0)?.flatten_all()
            }))
        },
    );
}

#[test]
fn qwen2_equals_candle_transformers() {
    check("Qwen2ForCausalLM", &json!({"num_key_value_heads": 2}), |config, vb| {
        let mut model = qwen2::ModelForCausalLM::new(&serde_json::from_value(config).unwrap(), vb)?;
        Ok(Box::new(move |tokens| {
            model.clear_kv_cache();
            model.forward(&row(tokens)?, 0)?.flatten_all()
        }))
    });
}

#[test]
fn qwen3_equals_candle_transformers() {
    let changes = json!({"num_key_value_heads": 2, "head_dim": 24});
    check("Qwen3ForCausalLM", &changes, |config, vb| {
        let mut model = qwen3::ModelForCausalLM::new(&serde_json::from_value(config).unwrap(), vb)?;
        Ok(Box::new(move |tokens| {
            model.clear_kv_cache();
            model.forward(&row(tokens)?, 0)?.flatten_all()
        }))
    });
}

fn llama_oracle(config: Value, vb: VarBuilder<'static>) -> Result<Oracle> {
    let config: llama::LlamaConfig = serde_json::from_value(config).unwrap();
    let config = config.into_config(false);
    let model = llama::Llama::load(vb, &config)?;
    Ok(Box::new(move |tokens| {
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
        model.forward(&row(tokens)?, 0, &mut cache)?.flatten_all()
    }))
}

fn row(tokens: &[u32]) -> Result<Tensor> {
    Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)
}

fn check(
    architecture: &str,
    changes: &Value,
    oracle: impl Fn(Value, VarBuilder<'static>) -> Result<Oracle>,
) {
    let mut config = json!({"architectures": [architecture], "vocab_size": 131, "hidden_size": 48,
        "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 160, "rms_norm_eps": 1e-5, "rope_theta": 5000.0,
        "tie_word_embeddings": false, "attention_bias": false, "hidden_act": "silu",
        "use_sliding_window": false, "sliding_window": 160, "max_window_layers": 2,
        "num_key_value_heads": 4});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let parsed = ModelConfig::parse(&config.to_string()).unwrap();
    let source = testing::random_source(&parsed, 3).unwrap();
    let vb = VarBuilder::from_tensors(source.0.clone(), DType::F32, &Device::Cpu);
    let mut oracle = oracle(config, vb).unwrap();
    let model = build(&parsed, &Weights::new(Arc::new(source), None)).unwrap();
    let prompt: Vec<u32> = (0..30).map(|i| i * 37 % 131).collect();
    for attention in backends() {
        let mut runner = Runner::new(&*model, &*attention);
        let (logits, answer) = runner.generate(&prompt, 11, NUM_TOKENS);
        let mut tokens = prompt.clone();
        for &token in &answer {
            let expected: Vec<f32> = oracle(&tokens).unwrap().to_vec1().unwrap();
            let error = relative_error(&logits[tokens.len() - 1], &expected);
            assert!(error <= 1e-4, "{architecture} at {}: {error:e}", tokens.len());
            assert_eq!(token, argmax(&expected), "{architecture} at {}", tokens.len());
            tokens.push(token);
        }
        assert!(8 <= distinct(&answer), "{architecture}: the text has collapsed: {answer:?}");
    }
}
