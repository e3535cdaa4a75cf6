//! Checkpoints that name or store tensors in ways of their own.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use pinion_models::testing::{logits, random_source};

use super::*;

/// A package of a config with random tensors, after a change to them.
fn package_of(
    config: &Value,
    change: impl Fn(HashMap<String, Tensor>) -> HashMap<String, Tensor>,
) -> TempDir {
    let dir = package();
    write(dir.path(), "weights/config.json", config.to_string());
    let parsed = ModelConfig::parse(&config.to_string()).expect("a config");
    let tensors = change(random_source(&parsed, 1).expect("valid").0);
    candle_core::safetensors::save(&tensors, dir.path().join("weights/model.safetensors"))
        .expect("saves");
    dir
}

/// Logits of a package that loads.
fn run(dir: &TempDir) -> Vec<Vec<f32>> {
    let loaded = load_from(dir.path()).expect("loads");
    logits(&*loaded.model, &[1, 5, 9, 70]).expect("runs")
}

fn renamed(from: &str, to: &str, tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let rename = |name: String| match name.strip_prefix(from) {
        Some(rest) => format!("{to}{rest}"),
        None => name,
    };
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

#[test]
fn checkpoints_with_older_names_load() {
    for (architecture, usual, other) in
        [("GPT2LMHeadModel", "transformer.", ""), ("GPTNeoXForCausalLM", "lm_head.", "embed_out.")]
    {
        let mut config = config_json();
        config["architectures"] = json!([architecture]);
        let expected = run(&package_of(&config, |tensors| tensors));
        let found = run(&package_of(&config, |tensors| renamed(usual, other, tensors)));
        assert_eq!(found, expected, "{architecture}");
        let gone = package_of(&config, |tensors| renamed(usual, "nowhere.", tensors));
        assert_eq!(refuse(gone.path()).code(), "weights_do_not_fit_config");
    }
}

#[test]
fn experts_in_blocks_of_mxfp4_load_and_numbers_in_their_place_are_refused() {
    let mut config = config_json();
    let quantized = json!({"quant_method": "mxfp4"});
    config.as_object_mut().expect("an object").extend([
        ("architectures".to_owned(), json!(["GptOssForCausalLM"])),
        ("quantization_config".to_owned(), quantized),
        ("rope_scaling".to_owned(), json!({"rope_type": "default"})),
        ("num_local_experts".to_owned(), json!(4)),
        ("num_experts_per_tok".to_owned(), json!(2)),
        ("intermediate_size".to_owned(), json!(64)),
        ("head_dim".to_owned(), json!(8)),
    ]);
    let logits = run(&package_of(&config, |tensors| tensors));
    assert!(logits.iter().flatten().all(|logit| logit.is_finite()));
    assert_ne!(logits[0], logits[1]);
    let widened = package_of(&config, |mut tensors| {
        let blocks =
            tensors.get_mut("model.layers.0.mlp.experts.down_proj_blocks").expect("is there");
        *blocks = blocks.to_dtype(DType::F32).expect("casts");
        tensors
    });
    let error = refuse(widened.path()).to_string();
    assert!(error.contains("has type F32, expected u8"), "{error}");
}
