//! What a source is asked for, and what it may get wrong.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use parking_lot::Mutex;
use pinion_kernels::{PackedTensor, ReferenceAttention, WeightType};
use pinion_models::testing::{random_source, tiny_llama};
use pinion_models::{MapSource, ModelConfig, TensorSource, Weights, architectures, build};

use crate::harness::Runner;

fn error_with(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> String {
    let mut source = random_source(&tiny_llama(), 0).unwrap();
    change(&mut source.0);
    let error = build(&tiny_llama(), &Weights::new(Arc::new(source), None)).err().unwrap();
    // A backtrace follows where one is asked for.
    error.to_string().lines().next().unwrap().to_owned()
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let error = error_with(|tensors| drop(tensors.remove(name)));
    let expected = format!("tensor `{name}` is missing, LlamaForCausalLM expects it with shape");
    assert_eq!(error, expected + " [16, 32]");

    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let error =
        error_with(|tensors| drop(tensors.insert(name.into(), zeros(&[32, 16], DType::F32))));
    assert_eq!(
        error,
        format!("tensor `{name}` has shape [32, 16], LlamaForCausalLM expects [16, 32]")
    );
    let error =
        error_with(|tensors| drop(tensors.insert(name.into(), zeros(&[16, 32], DType::U8))));
    assert_eq!(error, format!("tensor `{name}` has type U8, expected f32, f16 or bf16"));
}

/// A source that counts, and keeps what was derived.
#[derive(Default)]
struct Recorder {
    cold: MapSource,
    loaded: Mutex<Vec<String>>,
    packed: Mutex<HashMap<String, PackedTensor>>,
}

impl TensorSource for Recorder {
    fn load(&self, name: &str) -> Result<Option<Tensor>> {
        self.loaded.lock().push(name.to_owned());
        self.cold.load(name)
    }

    fn derive(
        &self,
        name: &str,
        make: &mut dyn FnMut() -> Result<PackedTensor>,
    ) -> Result<PackedTensor> {
        if let Some(packed) = self.packed.lock().get(name) {
            return Ok(packed.clone());
        }
        let packed = make()?;
        assert!(self.packed.lock().insert(name.to_owned(), packed.clone()).is_none(), "{name}");
        Ok(packed)
    }
}

#[test]
fn models_read_exactly_the_tensors_they_list_and_a_snapshot_needs_none() {
    for architecture in architectures() {
        for (bias, tied) in [(false, true), (true, false)] {
            // DeepSeek's biases are refused.
            let biased = if architecture.starts_with("Deepseek") { "no_" } else { "" };
            let config = ModelConfig::parse(&format!(
                r#"{{"architectures": ["{architecture}"], "vocab_size": 50, "hidden_size": 32,
                "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "max_position_embeddings": 64,
                "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                "shared_expert_intermediate_size": 8, "rope_scaling": {{"rope_type": "default"}},
                "kv_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
                "q_lora_rank": 10, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
                "{biased}attention_bias": {bias}, "{biased}mlp_bias": {bias},
                "tie_word_embeddings": {tied}}}"#
            ))
            .unwrap();
            let cold = random_source(&config, 5).unwrap();
            let recorder = Arc::new(Recorder { cold, ..Recorder::default() });
            let first = build(&config, &Weights::new(recorder.clone(), None)).unwrap();
            let mut loaded = recorder.loaded.lock().clone();
            let mut listed: Vec<_> =
                config.tensors().unwrap().into_iter().map(|tensor| tensor.name).collect();
            loaded.sort();
            listed.sort();
            assert_eq!(loaded, listed);

            let packed = Mutex::new(recorder.packed.lock().clone());
            let bytes: usize = packed.lock().values().map(|packed| packed.bytes().len()).sum();
            assert_eq!(first.spec().weight_bytes, bytes as u64);
            let warm = Arc::new(Recorder { packed, ..Recorder::default() });
            let second = build(&config, &Weights::new(warm.clone(), None)).unwrap();
            assert!(warm.loaded.lock().is_empty());
            assert_eq!(first.spec(), second.spec());
            let run = |model| Runner::new(model, &ReferenceAttention).generate(&[1, 2, 3], 3, 4);
            assert_eq!(run(&*first), run(&*second));
        }
    }
}

#[test]
fn a_snapshot_of_other_sizes_is_refused() {
    let recorder = Recorder::default();
    let packed = PackedTensor::pack_vector(&Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap());
    recorder.packed.lock().insert("model.embed_tokens.weight".to_owned(), packed.unwrap());
    let weights = Weights::new(Arc::new(recorder), None);
    let error = build(&tiny_llama(), &weights).err().unwrap().to_string();
    assert!(error.contains("`model.embed_tokens.weight` are [2, 1]"), "{error}");
}

#[test]
fn matrices_keep_the_checkpoint_type_unless_another_is_asked_for() {
    let config = tiny_llama();
    let bytes = |dtype: DType, kind| {
        let source = random_source(&config, 0).unwrap().0.into_iter();
        let source = source.map(|(name, t)| (name, t.to_dtype(dtype).unwrap())).collect();
        let weights = Weights::new(Arc::new(MapSource(source)), kind);
        build(&config, &weights).unwrap().spec().weight_bytes
    };
    let (f32, bf16) = (bytes(DType::F32, None), bytes(DType::BF16, None));
    assert!(bf16 < f32);
    assert_eq!(bytes(DType::F16, None), f32);
    assert_eq!(bytes(DType::BF16, Some(WeightType::F32)), f32);
    assert_eq!(bytes(DType::F32, Some(WeightType::Bf16)), bf16);
}

#[test]
fn tied_embeddings_are_in_memory_once() {
    let config = |tied: bool| {
        ModelConfig::parse(&format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "vocab_size": 640, "hidden_size": 32,
            "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
            "max_position_embeddings": 64, "tie_word_embeddings": {tied}}}"#
        ))
        .unwrap()
    };
    let spec = |tied| {
        let config = config(tied);
        let weights = Weights::new(Arc::new(random_source(&config, 0).unwrap()), None);
        build(&config, &weights).unwrap().spec().clone()
    };
    let (tied, untied) = (spec(true), spec(false));
    assert_eq!(untied.num_parameters - tied.num_parameters, 640 * 32);
    assert_eq!(untied.weight_bytes - tied.weight_bytes, 640 * 32 * 4);
}
