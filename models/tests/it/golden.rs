//! Logits and text of HF transformers, as `oracle/generate.py` wrote them.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::DType;
use pinion_kernels::WeightType;
use pinion_models::{MapSource, ModelConfig, Weights, build, testing};
use serde::Deserialize;

use crate::harness::{Runner, backends, distinct, relative_error};

/// Largest difference of a row of logits, as a part of its largest value.
///
/// About three times the largest that is measured, 6.5e-6: only the order of summation differs.
const TOLERANCE: f32 = 2e-5;

/// The same with bf16 weights: a processor with tiles keeps 16 bits of an activation. Measured 5.5e-5.
const BF16_TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    config: serde_json::Value,
    num_parameters: u64,
    max_model_len: Option<usize>,
    prompt: Vec<u32>,
    f32: Answer,
    bf16: Answer,
}

#[derive(Deserialize)]
struct Answer {
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

#[test]
fn llama_equals_transformers() {
    check_family("llama-", 5);
}

#[test]
fn rope_scaling_equals_transformers() {
    check_family("rope-", 10);
}

#[test]
fn mistral_equals_transformers() {
    check_family("mistral-", 3);
}

#[test]
fn qwen2_equals_transformers() {
    check_family("qwen2-", 4);
}

#[test]
fn qwen3_equals_transformers() {
    check_family("qwen3-", 4);
}

#[test]
fn phi3_equals_transformers() {
    check_family("phi3-", 3);
}

#[test]
fn olmo2_equals_transformers() {
    check_family("olmo2-", 2);
}

#[test]
fn granite_equals_transformers() {
    check_family("granite-", 2);
}

#[test]
fn smollm3_equals_transformers() {
    check_family("smollm3-", 3);
}

#[test]
fn gemma2_equals_transformers() {
    check_family("gemma2-", 3);
}

#[test]
fn gemma3_equals_transformers() {
    check_family("gemma3-", 3);
}

#[test]
fn gpt2_equals_transformers() {
    check_family("gpt2-", 3);
}

#[test]
fn gpt_neox_equals_transformers() {
    check_family("gpt_neox-", 3);
}

#[test]
fn mixtral_equals_transformers() {
    check_family("mixtral-", 2);
}

#[test]
fn qwen2_moe_equals_transformers() {
    check_family("qwen2_moe-", 2);
}

#[test]
fn qwen3_moe_equals_transformers() {
    check_family("qwen3_moe-", 2);
}

#[test]
fn gpt_oss_equals_transformers() {
    check_family("gpt_oss-", 3);
}

#[test]
fn deepseek2_equals_transformers() {
    check_family("deepseek2-", 2);
}

#[test]
fn deepseek3_equals_transformers() {
    check_family("deepseek3-", 3);
}

fn check_family(prefix: &str, num_cases: usize) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    paths.sort();
    assert_eq!(paths.len(), num_cases, "golden files of {prefix}");
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let golden: Golden =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let config = ModelConfig::parse(&golden.config.to_string())
            .unwrap()
            .with_max_model_len(golden.max_model_len);
        assert_eq!(config.num_parameters().unwrap(), golden.num_parameters, "{name}");
        let source = testing::random_source(&config, golden.seed).unwrap();
        let chunks = [golden.prompt.len(), 1, 7];
        let f32 = (&golden.f32, &chunks[..], TOLERANCE);
        let bf16 = (&golden.bf16, &chunks[..1], BF16_TOLERANCE);
        check(&format!("{name} f32"), &config, source.clone(), &golden.prompt, f32);
        check(&format!("{name} bf16"), &config, rounded(source), &golden.prompt, bf16);
    }
}

/// The source as a bf16 checkpoint has it.
fn rounded(source: MapSource) -> MapSource {
    let round = |(name, tensor): (String, candle_core::Tensor)| {
        if tensor.dtype() == DType::U8 {
            return (name, tensor);
        }
        (name, tensor.to_dtype(DType::BF16).unwrap())
    };
    MapSource(source.0.into_iter().map(round).collect())
}

#[expect(clippy::print_stderr, reason = "the measured error is worth reading")]
fn check(
    name: &str,
    config: &ModelConfig,
    source: MapSource,
    prompt: &[u32],
    (expected, chunks, tolerance): (&Answer, &[usize], f32),
) {
    assert!(16 <= distinct(&expected.greedy), "{name}: the text has collapsed");
    // Blocks would stay quantized, which rounds activations.
    let dense = if name.ends_with("bf16") { WeightType::Bf16 } else { WeightType::F32 };
    let kind = config.quant_method().map(|_| dense);
    let model = build(config, &Weights::new(Arc::new(source), kind)).unwrap();
    let mut worst = 0f32;
    for attention in backends() {
        let mut runner = Runner::new(&*model, &*attention);
        for &chunk in chunks {
            let case = format!("{name}, {} attention, chunks of {chunk}", attention.name());
            let (logits, greedy) = runner.generate(prompt, chunk, expected.greedy.len());
            for (&position, expected) in expected.positions.iter().zip(&expected.logits) {
                let error = relative_error(&logits[position], expected);
                assert!(error <= tolerance, "{case}, position {position}: {error:e}");
                worst = worst.max(error);
            }
            assert_eq!(greedy, expected.greedy, "{case}");
        }
    }
    eprintln!("{name}: {worst:.1e}");
}
