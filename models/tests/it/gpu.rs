//! Models on a GPU, or where there is none on the emulation of its kernels, against the CPU.

use std::sync::Arc;

use candle_core::DType;
use pinion_kernels::{Device, Gpu, PagedAttention, WeightType};
use pinion_models::testing::random_source;
use pinion_models::{CausalLm, ModelConfig, Weights, build};

use crate::harness::{Runner, Sequence, argmax, distinct, relative_error};

/// As [`pinion_models::testing::tiny_llama`], but wide enough for every weight type.
const CONFIGS: [&str; 5] = [
    r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 197, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#,
    r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 197, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "head_dim": 32,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": true}"#,
    r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 197, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}"#,
    r#"{"architectures": ["Phi3ForCausalLM"], "vocab_size": 197, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "sliding_window": 11,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "partial_rotary_factor": 0.5}"#,
    r#"{"architectures": ["SmolLM3ForCausalLM"], "vocab_size": 197, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "no_rope_layers": [1, 0],
    "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": false}"#,
];

fn model(config: &str, kind: WeightType, device: &Device) -> Box<dyn CausalLm> {
    let config = ModelConfig::parse(config).unwrap();
    let source = Arc::new(random_source(&config, 3).unwrap());
    build(&config, &Weights::new(source, Some(kind)).on(device)).unwrap()
}

#[test]
fn a_gpu_gives_the_logits_and_the_text_of_the_cpu() {
    let Some(gpu) = Gpu::for_tests().map(Device::Gpu) else { return };
    let prompt: Vec<u32> = (0..21).map(|t| (t * 13 + 5) % 197).collect();
    let kinds = [
        (WeightType::F32, 1e-5),
        (WeightType::Bf16, 1e-4),
        (WeightType::Q8_0, 2e-2),
        (WeightType::Q4K, 2e-2),
    ];
    for config in CONFIGS {
        for (kind, tolerance) in kinds {
            let (on_cpu, on_gpu) = (model(config, kind, &Device::Cpu), model(config, kind, &gpu));
            assert_eq!(on_cpu.spec(), on_gpu.spec());
            let attention = gpu.attention();
            let mut runner = Runner::on(&gpu, DType::F32, &*on_gpu, &*attention);
            let (found, text) = runner.generate(&prompt, 64, 8);
            // The text of the GPU is fed to the CPU, so that a near tie does not hide the rest.
            let mut sequence = Sequence::default();
            let mut runner = Runner::new(&*on_cpu, &PagedAttention);
            let expected =
                runner.step(&mut [(&mut sequence, &[prompt.clone(), text.clone()].concat())]);
            let error = relative_error(&found.concat(), &expected.concat());
            assert!(error < tolerance, "{kind}: off by {error}");
            if !kind.is_quantized() {
                let best = expected[prompt.len() - 1..].iter().map(|row| argmax(row));
                assert_eq!(best.take(text.len()).collect::<Vec<_>>(), text, "{kind}");
            }
            assert!(3 < distinct(&text), "{text:?}");
        }
    }
}

#[test]
fn logits_on_a_gpu_are_the_same_bits_alone_chunked_and_in_a_batch() {
    let Some(gpu) = Gpu::for_tests().map(Device::Gpu) else { return };
    let texts: Vec<Vec<u32>> =
        (0..3).map(|i| (0..12 + 9 * i).map(|t| (t * 13 + i * 29) % 197).collect()).collect();
    for kind in [WeightType::F32, WeightType::Bf16, WeightType::Q8_0] {
        let model = model(CONFIGS[1], kind, &gpu);
        let attention = gpu.attention();
        let mut runner = Runner::on(&gpu, DType::BF16, &*model, &*attention);
        let whole: Vec<_> = texts.iter().map(|text| runner.generate(text, 64, 0).0).collect();
        for (text, whole) in texts.iter().zip(&whole) {
            assert!(bits(&runner.generate(text, 7, 0).0) == bits(whole), "{kind} in chunks");
        }
        assert!(bits(&runner.generate(&texts[0], 1, 0).0) == bits(&whole[0]), "{kind} one by one");
        let mut sequences: Vec<_> = texts.iter().map(|_| Sequence::default()).collect();
        let mut work: Vec<_> =
            sequences.iter_mut().zip(&texts).map(|(seq, text)| (seq, text.as_slice())).collect();
        assert!(bits(&runner.step(&mut work)) == bits(&whole.concat()), "{kind} in a batch");
    }
}

#[test]
fn what_has_no_kernels_for_a_gpu_is_refused_by_name() {
    let Some(gpu) = Gpu::for_tests().map(Device::Gpu) else { return };
    let config = ModelConfig::parse(&CONFIGS[0].replace("LlamaFor", "GraniteFor")).unwrap();
    let source = Arc::new(random_source(&config, 3).unwrap());
    let error = build(&config, &Weights::new(source, None).on(&gpu)).err().unwrap().to_string();
    assert!(
        error.starts_with("GraniteForCausalLM is not served on a gpu, these are: Llama"),
        "{error}"
    );
}

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}
