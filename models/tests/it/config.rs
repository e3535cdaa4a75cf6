//! Configs that are wrong, each with the message it must give.

use pinion_models::{MapSource, ModelConfig, Weights, build};
use serde_json::{Value, json};
use std::sync::Arc;

fn valid(architecture: &str) -> Value {
    json!({"architectures": [architecture], "vocab_size": 97, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5})
}

fn changed(base: &Value, changes: &Value) -> Value {
    let mut config = base.clone();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn error_of(config: &Value) -> String {
    match ModelConfig::parse(&config.to_string()).and_then(|config| config.tensors()) {
        Ok(_) => panic!("accepted: {config}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_invalid_value_has_its_message() {
    let rope = |rope: Value| json!({"rope_scaling": rope});
    let cases = [
        (
            json!({"architectures": ["MambaForCausalLM"]}),
            "supported are: LlamaForCausalLM, Mistral",
        ),
        (json!({"architectures": []}), "names no architecture"),
        (json!({"architectures": "Llama"}), "config.json: invalid type"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantized with `gptq`"),
        (json!({"quantization_config": {}}), "quantized with `unnamed`"),
        (json!({"hidden_size": null}), "config.json: invalid type: null"),
        (json!({"hidden_size": -4}), "config.json: invalid value"),
        (json!({"hidden_size": 0}), "hidden_size is out of range: 0"),
        (json!({"hidden_size": u64::MAX}), "hidden_size is out of range"),
        (json!({"hidden_size": 30}), "num_attention_heads must divide hidden_size"),
        (json!({"num_attention_heads": 0}), "num_attention_heads is out of range: 0"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads is out of range: 0"),
        (json!({"num_key_value_heads": 3}), "must divide num_attention_heads: 3 of 4"),
        (json!({"num_key_value_heads": 8}), "must divide num_attention_heads: 8 of 4"),
        (json!({"num_attention_heads": 32}), "even head_dim: 1"),
        (json!({"head_dim": 7}), "even head_dim: 7"),
        (json!({"head_dim": 16_000_000}), "4 heads of 16000000 are out of range"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers is out of range: 0"),
        (json!({"num_hidden_layers": 1_000_000}), "num_hidden_layers is out of range"),
        (json!({"vocab_size": 0}), "vocab_size is out of range: 0"),
        (json!({"intermediate_size": 1u64 << 40}), "intermediate_size is out of range"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings is out of range: 0"),
        (json!({"max_position_embeddings": 1u64 << 50}), "max_position_embeddings is out of range"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps is out of range: -1"),
        (json!({"hidden_act": "gelu"}), "hidden_act `gelu` is not supported"),
        (json!({"rope_theta": 0.0}), "rope rope_theta is out of range: 0"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is not supported: 0.5"),
        (json!({"original_max_position_embeddings": 0}), "original_max_position_embeddings"),
        (
            rope(json!({"type": "xpos"})),
            "rope type `xpos` is not supported, supported are: default",
        ),
        (rope(json!({"type": "linear"})), "rope factor is missing"),
        (rope(json!({"type": "linear", "factor": 0})), "rope factor is out of range: 0"),
        (rope(json!({"type": "llama3", "factor": 8})), "rope low_freq_factor is missing"),
        (rope(json!({"type": "yarn", "factor": -1})), "rope factor is out of range: -1"),
        (rope(json!({"type": "longrope"})), "rope short_factor is missing"),
        (
            rope(json!({"type": "longrope", "short_factor": [1, 0], "long_factor": [1]})),
            "rope short_factor is out of range: 0",
        ),
        (rope(json!({"full_attention": {"rope_type": "default"}})), "by layer type"),
    ];
    for (changes, expected) in cases {
        let error = error_of(&changed(&valid("LlamaForCausalLM"), &changes));
        assert!(error.contains(expected), "{changes}: {error}");
    }
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let cases = [
        ("MistralForCausalLM", json!({"sliding_window": 0}), "sliding_window must be at least 1"),
        (
            "Qwen2ForCausalLM",
            json!({"use_sliding_window": true, "layer_types": ["full_attention"]}),
            "layer_types has 1 entries for 2 layers",
        ),
        (
            "Qwen3ForCausalLM",
            json!({"layer_types": ["sliding_attention", "full_attention"]}),
            "there is no sliding_window",
        ),
        (
            "Qwen3ForCausalLM",
            json!({"layer_types": ["linear_attention", "full_attention"]}),
            "layer type `linear_attention` is not supported",
        ),
    ];
    for (architecture, changes, expected) in cases {
        let error = error_of(&changed(&valid(architecture), &changes));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn fields_that_published_configs_have_under_two_names_are_read() {
    let others = json!({"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64,
        "sliding_window_pattern": 2, "_sliding_window_pattern": 2, "experts_per_token": 2,
        "num_experts_per_tok": 2, "num_experts": 3, "num_local_experts": 3, "n_routed_experts": 4,
        "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16, "kv_lora_rank": 24,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6, "rotary_emb_base": 10_000,
        "rope_theta": 10_000.0, "rotary_pct": 1.0, "partial_rotary_factor": 1.0,
        "rope_scaling": {"rope_type": "default"}, "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5});
    for architecture in pinion_models::architectures() {
        let mut config = changed(&valid(architecture), &others);
        if architecture == "GPTNeoXForCausalLM" {
            config["hidden_act"] = json!("gelu");
        }
        let tensors = ModelConfig::parse(&config.to_string()).unwrap().tensors();
        assert!(tensors.is_ok(), "{architecture}: {:?}", tensors.err());
    }
}

#[test]
fn options_that_change_the_result_and_are_not_served_are_named() {
    let moe = json!({"num_experts": 3, "n_routed_experts": 3, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6});
    let cases = [
        ("Gemma2ForCausalLM", json!({"hidden_activation": "relu"}), "hidden_activation `relu`"),
        ("Gemma2ForCausalLM", json!({"sliding_window": null}), "layers slide but sliding_window"),
        ("Gemma3ForCausalLM", json!({"use_bidirectional_attention": true}), "use_bidirectional"),
        ("Gemma3ForCausalLM", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
        (
            "Gemma3ForCausalLM",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0}}),
            "rope_parameters must be by layer type",
        ),
        ("GPT2LMHeadModel", json!({"add_cross_attention": true}), "add_cross_attention"),
        ("GPT2LMHeadModel", json!({"activation_function": "relu"}), "activation_function `relu`"),
        ("GPTNeoXForCausalLM", json!({"hidden_act": "silu"}), "hidden_act `silu`"),
        ("GPTNeoXForCausalLM", json!({"hidden_act": "gelu", "head_dim": 4}), "head_dim"),
        ("Phi3ForCausalLM", json!({"rope_scaling": {"type": "linear", "factor": 2}}), "longrope"),
        ("GraniteForCausalLM", json!({"logits_scaling": 0}), "logits_scaling is out of range: 0"),
        ("SmolLM3ForCausalLM", json!({"no_rope_layers": [1]}), "no_rope_layers has 1 entries"),
        ("MixtralForCausalLM", json!({"num_experts_per_tok": 9}), "cannot choose 9 of 3 experts"),
        ("MixtralForCausalLM", json!({"num_experts": 1 << 20}), "num_experts is out of range"),
        ("Qwen3MoeForCausalLM", json!({"decoder_sparse_step": 0}), "decoder_sparse_step"),
        ("GptOssForCausalLM", json!({}), "rope_scaling is missing"),
        (
            "GptOssForCausalLM",
            json!({"rope_scaling": {"type": "default"}, "quantization_config": {"quant_method": "fp8"}}),
            "quantized with `fp8`",
        ),
        ("DeepseekV2ForCausalLM", json!({"norm_topk_prob": true}), "norm_topk_prob"),
        ("DeepseekV2ForCausalLM", json!({"topk_method": "noaux_tc"}), "topk_method `noaux_tc`"),
        ("DeepseekV3ForCausalLM", json!({"scoring_func": "softmax"}), "scoring_func `softmax`"),
        ("DeepseekV3ForCausalLM", json!({"attention_bias": true}), "attention_bias"),
        ("DeepseekV3ForCausalLM", json!({"moe_layer_freq": 2}), "moe_layer_freq"),
        ("DeepseekV3ForCausalLM", json!({"n_group": 2}), "groups of 3 experts"),
        ("DeepseekV3ForCausalLM", json!({"qk_rope_head_dim": 3}), "must be even: 3"),
    ];
    for (architecture, changes, expected) in cases {
        let error = error_of(&changed(&changed(&valid(architecture), &moe), &changes));
        assert!(error.contains(expected), "{architecture} {changes}: {error}");
    }
}

#[test]
fn longrope_factors_must_fit_the_heads() {
    let rope = json!({"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2]});
    let config = changed(&valid("LlamaForCausalLM"), &json!({"rope_scaling": rope}));
    let config = ModelConfig::parse(&config.to_string()).unwrap();
    let weights = Weights::new(Arc::new(MapSource::default()), None);
    let error = build(&config, &weights).err().unwrap().to_string();
    assert!(error.contains("longrope has 2 factors, its heads have 4"), "{error}");
}

#[test]
fn the_length_asked_for_must_be_within_reach() {
    let longrope = json!({"type": "longrope", "short_factor": [1, 1, 1, 1],
        "long_factor": [2, 2, 2, 2], "original_max_position_embeddings": 32});
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    let dynamic = json!({"type": "dynamic", "factor": 2.0});
    let linear = json!({"type": "linear", "factor": 2.0});
    // (rope, the length if none is asked for, the longest, the error beyond)
    let cases = [
        (Value::Null, 128, 128, "at most 128, where the model's positions end: 129"),
        (linear, 128, 256, "at most 256"),
        (dynamic, 128, 128, "dynamic rope scaling depends on the other texts"),
        (yarn, 512, 512, "at most 512"),
        (longrope, 32, 128, "at most 128"),
    ];
    for (rope, default, limit, expected) in cases {
        let config = changed(&valid("LlamaForCausalLM"), &json!({"rope_scaling": rope}));
        let config = ModelConfig::parse(&config.to_string()).unwrap();
        let len = |asked| -> candle_core::Result<usize> {
            let config = config.clone().with_max_model_len(asked);
            let source = pinion_models::testing::random_source(&config, 0)?;
            Ok(build(&config, &Weights::new(Arc::new(source), None))?.spec().max_model_len)
        };
        assert_eq!(len(None).unwrap(), default);
        assert_eq!(len(Some(limit)).unwrap(), limit);
        assert_eq!(len(Some(5)).unwrap(), 5);
        assert!(len(Some(0)).is_err());
        let error = len(Some(limit + 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// No value of any field ends the process, whatever else it ends in.
#[test]
fn hostile_values_end_in_a_result() {
    let values = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1.5),
        json!(1e300),
        json!(u32::MAX),
        json!(1u64 << 33),
        json!(u64::MAX),
        json!("silu"),
        json!([]),
        json!([1e-300]),
        json!({}),
    ];
    let full = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "attention_factor": 1.0,
        "truncate": true, "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2],
        "rope_theta": 1e4, "partial_rotary_factor": 1.0});
    let top = json!({"head_dim": 8, "hidden_act": "silu", "tie_word_embeddings": false,
        "attention_bias": false, "mlp_bias": false, "sliding_window": 9,
        "use_sliding_window": true, "max_window_layers": 1, "layer_types": null,
        "rope_theta": 1e4, "partial_rotary_factor": null, "rope_parameters": null,
        "original_max_position_embeddings": 32, "quantization_config": null});
    let others = json!({"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
        "q_lora_rank": 10, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "n_shared_experts": 1, "routed_scaling_factor": 1.0, "swiglu_limit": 7.0, "n_inner": 48,
        "query_pre_attn_scalar": 8, "final_logit_softcapping": 9.0, "no_rope_layers": [1, 0],
        "sliding_window_pattern": 2, "no_rope_layer_interval": 2, "logits_scaling": 2.0});
    let types = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];
    let mut tried = 0;
    for architecture in pinion_models::architectures() {
        let mut base = changed(&valid(architecture), &top);
        let is_first = architecture == "LlamaForCausalLM";
        if !is_first {
            base = changed(&base, &others);
        }
        if architecture == "GPTNeoXForCausalLM" {
            base["hidden_act"] = json!("gelu");
        }
        // The others read angles by the same code.
        let other = if architecture == "Phi3ForCausalLM" { &types[5..] } else { &types[4..5] };
        for rope_type in if is_first { &types[..] } else { other } {
            let rope = changed(&full, &json!({"rope_type": rope_type}));
            let base = changed(&base, &json!({"rope_scaling": rope}));
            let config = ModelConfig::parse(&base.to_string()).unwrap();
            assert!(config.tensors().is_ok(), "{architecture}: {:?}", config.tensors().err());
            for value in &values {
                for field in base.as_object().unwrap().keys() {
                    read(&changed(&base, &json!({field: value})));
                    tried += 1;
                }
                for field in rope.as_object().unwrap().keys() {
                    let rope = changed(&rope, &json!({field: value}));
                    read(&changed(&base, &json!({"rope_scaling": rope})));
                    tried += 1;
                }
            }
        }
    }
    assert!(10_000 < tried, "{tried}");
}

/// Goes as far as a model without weights goes.
fn read(config: &Value) {
    let Ok(config) = ModelConfig::parse(&config.to_string()) else { return };
    for asked in [None, Some(1), Some(usize::MAX)] {
        let config = config.clone().with_max_model_len(asked);
        let weights = Weights::new(Arc::new(MapSource::default()), None);
        assert!(build(&config, &weights).is_err(), "built without weights");
        drop(config.tensors());
    }
}

#[test]
fn text_that_is_no_config_is_refused() {
    for text in ["", "{", "[]", "7", "\"\"", "{}", &"[".repeat(100_000)] {
        let error = ModelConfig::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("config.json"), "{error}");
    }
}
