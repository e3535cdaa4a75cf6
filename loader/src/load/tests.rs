//! Whole packages: loaded, and refused for each thing that can be missing or wrong.

use std::path::Path;

use pinion_cog_compat::Manifest;
use pinion_cog_compat::manifest::Backend;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::progress::silent;
use crate::resolve::decide;
use crate::testing::{config_json, tensors, write, write_metadata, write_package, write_shards};

mod others;

fn package() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    write_package(dir.path());
    dir
}

fn open(root: &Path) -> PackageFiles {
    PackageFiles::directory(root).expect("opens")
}

fn load_from(root: &Path) -> Result<LoadedPackage, LoadError> {
    load(&open(root), &LoadOptions::default(), &silent())
}

fn refuse(root: &Path) -> LoadError {
    load_from(root).expect_err("the package is wrong")
}

fn patch_config(root: &Path, key: &str, value: Value) {
    let mut config = config_json();
    config[key] = value;
    write(root, "weights/config.json", config.to_string());
}

#[test]
fn a_package_loads_with_everything_beside_its_weights() {
    let dir = package();
    let loaded = load_from(dir.path()).expect("loads");
    assert_eq!((loaded.architecture.as_str(), loaded.dtype.as_str()), ("LlamaForCausalLM", "f32"));
    assert_eq!((loaded.spec.vocab_size, loaded.spec.max_model_len), (97, 128));
    assert_eq!(loaded.eos_token_ids, [2, 5]);
    assert_eq!(loaded.defaults.temperature, Some(0.6));
    assert_eq!((loaded.defaults.top_p, loaded.defaults.top_k), (Some(0.9), Some(50)));
    assert_eq!(loaded.tokenizer.encode_chat("ab").expect("encodes"), [3, 4]);
    let template = loaded.template.expect("has one");
    let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    let input = RenderInput {
        messages: &messages,
        tools: None,
        extra: None,
        add_generation_prompt: true,
        unix_seconds: 0,
    };
    assert_eq!(template.render(&input).expect("renders"), "a.b.");
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn weights_are_found_wherever_a_package_may_have_them() {
    for (directory, manifest) in [
        ("weights", "build: {}\n"),
        (".", "build: {}\n"),
        ("models/a", "model: r/m\nweights: [{name: a, target: /w, source: {uri: ./models/a}}]\n"),
        (
            "models/a",
            "model: r/m\nweights: [{name: a, target: /w, source: {uri: 'file://models/a'}}]\n",
        ),
        (
            "models/a",
            "model: r/m\nweights: [{name: a, target: /w, source: {uri: models/a/model.safetensors.index.json}}, {name: b, target: /v, source: {uri: models/a}}]\n",
        ),
        (
            "weights",
            "model: r/m\nweights: [{name: a, target: /w, source: {uri: 'hf://org/model'}}]\n",
        ),
    ] {
        let dir = TempDir::new().expect("a directory");
        write(dir.path(), "cog.yaml", manifest);
        write_metadata(dir.path(), directory);
        write_shards(dir.path(), directory);
        let loaded = load_from(dir.path());
        assert!(loaded.is_ok(), "{directory} {manifest}: {loaded:?}");
    }
}

#[test]
fn remote_weights_are_refused_with_the_way_out() {
    let dir = TempDir::new().expect("a directory");
    write(
        dir.path(),
        "cog.yaml",
        "model: r/m\nweights: [{name: a, target: /w, source: {uri: 'hf://org/model'}}]\n",
    );
    let error = refuse(dir.path());
    assert_eq!(error.code(), "remote_weights_not_supported");
    assert!(error.to_string().contains("hf://org/model"), "{error}");
    assert!(error.hint().expect("a way out").contains("./weights"));
}

#[test]
fn weights_named_outside_the_package_are_refused() {
    for (uri, code) in [
        ("../other", "path_invalid"),
        ("/etc", "path_invalid"),
        ("file:///etc", "path_invalid"),
        ("./none", "weights_missing"),
    ] {
        let dir = package();
        write(
            dir.path(),
            "cog.yaml",
            format!("model: r/m\nweights: [{{name: a, target: /w, source: {{uri: '{uri}'}}}}]\n"),
        );
        assert_eq!(refuse(dir.path()).code(), code, "{uri}");
    }
}

#[test]
fn the_operators_choice_stands_above_the_packages() {
    let dir = package();
    write(
        dir.path(),
        "cog.yaml",
        "pinion: {dtype: bf16, max_model_len: 64, prompt_template: 'Q: {prompt}'}\n",
    );
    let loaded = load_from(dir.path()).expect("loads");
    assert_eq!((loaded.dtype.as_str(), loaded.spec.max_model_len), ("bf16", 64));
    let options = LoadOptions {
        dtype: Some("f32".into()),
        max_model_len: Some(32),
        ..LoadOptions::default()
    };
    let loaded = load(&open(dir.path()), &options, &silent()).expect("loads");
    assert_eq!((loaded.dtype.as_str(), loaded.spec.max_model_len), ("f32", 32));
    let options = LoadOptions { dtype: Some("fp8".into()), ..LoadOptions::default() };
    assert_eq!(
        load(&open(dir.path()), &options, &silent()).expect_err("not yet").code(),
        "dtype_not_supported"
    );
}

#[test]
fn each_missing_file_has_its_own_error() {
    for (file, code) in [
        ("cog.yaml", "manifest_missing"),
        ("weights/config.json", "config_missing"),
        ("weights/tokenizer.json", "tokenizer_missing"),
        ("weights/model.safetensors", "weights_missing"),
    ] {
        let dir = package();
        std::fs::remove_file(dir.path().join(file)).expect("removes");
        let error = refuse(dir.path());
        assert_eq!(error.code(), code, "{file}: {error}");
        assert!(error.hint().is_some(), "{file}");
    }
}

#[test]
fn optional_files_may_be_missing() {
    let dir = package();
    for file in ["tokenizer_config.json", "generation_config.json"] {
        std::fs::remove_file(dir.path().join("weights").join(file)).expect("removes");
    }
    let loaded = load_from(dir.path()).expect("loads");
    assert!(loaded.template.is_none());
    assert_eq!(loaded.eos_token_ids, [2]);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn each_broken_file_has_its_own_error() {
    for (file, text, code) in [
        ("cog.yaml", "run: [", "manifest_invalid"),
        ("weights/config.json", "{", "config_invalid"),
        ("weights/config.json", "{}", "config_invalid"),
        ("weights/tokenizer.json", "{\"decoder\":[}}}", "tokenizer_invalid"),
        ("weights/tokenizer_config.json", "[]", "metadata_invalid"),
        ("weights/tokenizer_config.json", "{\"eos_token\": 1}", "metadata_invalid"),
        ("weights/tokenizer_config.json", "{\"chat_template\": 1}", "metadata_invalid"),
        (
            "weights/tokenizer_config.json",
            "{\"chat_template\": \"{% if\"}",
            "chat_template_invalid",
        ),
        (
            "weights/tokenizer_config.json",
            "{\"chat_template\": [{\"name\": \"x\", \"template\": \"\"}]}",
            "chat_template_invalid",
        ),
        ("weights/chat_template.json", "{}", "metadata_invalid"),
        ("weights/generation_config.json", "1", "metadata_invalid"),
        ("weights/model.safetensors", "", "weights_truncated"),
        (
            "weights/model.safetensors",
            "version https://git-lfs.github.com/spec/v1\n",
            "weights_header_too_large",
        ),
    ] {
        let dir = package();
        write(dir.path(), file, text);
        let error = refuse(dir.path());
        assert_eq!(error.code(), code, "{file} {text}: {error}");
    }
}

#[test]
fn weights_of_another_model_are_refused_before_they_are_read() {
    let dir = package();
    patch_config(dir.path(), "hidden_size", json!(64));
    let error = refuse(dir.path());
    assert_eq!(error.code(), "weights_do_not_fit_config", "{error}");
    assert!(error.to_string().contains("has shape"), "{error}");
    let dir = package();
    let mut tensors = tensors();
    tensors.remove("model.norm.weight").expect("every Llama has one");
    candle_core::safetensors::save(&tensors, dir.path().join("weights/model.safetensors"))
        .expect("saves");
    let error = refuse(dir.path());
    assert_eq!(
        error.to_string(),
        "weights do not fit config.json: tensor `model.norm.weight` is missing"
    );
}

#[test]
fn an_integer_where_a_weight_should_be_is_refused_by_name() {
    let dir = package();
    let mut tensors = tensors();
    let norm = tensors["model.norm.weight"].to_dtype(candle_core::DType::I64).expect("casts");
    tensors.insert("model.norm.weight".to_owned(), norm);
    candle_core::safetensors::save(&tensors, dir.path().join("weights/model.safetensors"))
        .expect("saves");
    let error = refuse(dir.path());
    assert_eq!(error.code(), "tensor_dtype_not_supported");
    assert!(error.to_string().contains("`model.norm.weight`"), "{error}");
}

#[test]
fn unknown_architectures_and_quantizations_are_named() {
    let dir = package();
    patch_config(dir.path(), "architectures", json!(["MambaForCausalLM"]));
    let error = refuse(dir.path());
    assert_eq!(error.code(), "architecture_not_supported");
    assert!(
        error.to_string().contains("MambaForCausalLM")
            && error.to_string().contains("LlamaForCausalLM"),
        "{error}"
    );
    let dir = package();
    patch_config(dir.path(), "quantization_config", json!({"quant_method": "gptq"}));
    assert_eq!(refuse(dir.path()).code(), "quantization_not_supported");
}

#[test]
fn a_config_with_absurd_numbers_is_an_error() {
    for (key, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1_u64 << 40)),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("vocab_size", json!(-1)),
        ("vocab_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(0)),
        ("rms_norm_eps", json!("x")),
        ("max_position_embeddings", json!(0)),
        ("head_dim", json!(1_u64 << 62)),
    ] {
        let dir = package();
        patch_config(dir.path(), key, value.clone());
        let error = refuse(dir.path());
        assert!(
            ["config_invalid", "weights_do_not_fit_config", "model_not_buildable"]
                .contains(&error.code()),
            "{key} {value}: {error}"
        );
    }
}

#[test]
fn ends_of_text_that_the_model_does_not_have_are_left_out_with_a_warning() {
    let dir = package();
    write(
        dir.path(),
        "weights/generation_config.json",
        r#"{"eos_token_id": [2, 500], "temperature": -1, "top_p": 2, "top_k": 0}"#,
    );
    let loaded = load_from(dir.path()).expect("loads");
    assert_eq!(loaded.eos_token_ids, [2]);
    assert_eq!(loaded.defaults, GenerationDefaults::default());
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
}

#[test]
fn a_template_file_stands_above_the_tokenizers_config() {
    let dir = package();
    write(dir.path(), "weights/chat_template.json", r#"{"chat_template": "json"}"#);
    let rendered = |dir: &TempDir| {
        let template = load_from(dir.path()).expect("loads").template.expect("has one");
        let messages = json!([{"role": "user", "content": "a"}]);
        let input = RenderInput {
            messages: &messages,
            tools: None,
            extra: None,
            add_generation_prompt: true,
            unix_seconds: 0,
        };
        template.render(&input).expect("renders")
    };
    assert_eq!(rendered(&dir), "json");
    write(dir.path(), "weights/chat_template.jinja", "jinja");
    assert_eq!(rendered(&dir), "jinja");
}

#[test]
fn the_backend_is_decided_in_order_and_with_its_reason() {
    let manifest = |text: &str| Manifest::parse(text).expect("valid");
    let decision = decide(&manifest("build: {}\n"), None);
    assert_eq!((decision.backend, decision.certain), (Backend::Native, false));
    let decision = decide(&manifest("predict: p.py:P\n"), None);
    assert_eq!((decision.backend, decision.certain), (Backend::Container, true));
    let decision = decide(&manifest("predict: p.py:P\npinion: {backend: native}\n"), None);
    assert_eq!((decision.backend, decision.certain), (Backend::Native, true));
    let decision = decide(&manifest("build: {}\n"), Some(Backend::Process));
    assert_eq!(
        (decision.backend, decision.reason.as_str()),
        (Backend::Process, "`--backend process` was given")
    );
}

#[test]
fn inspection_settles_what_the_manifest_left_open() {
    let dir = package();
    let inspected = inspect(&open(dir.path()), None).expect("inspects");
    assert_eq!((inspected.decision.backend, inspected.decision.certain), (Backend::Native, true));
    assert!(
        inspected.decision.reason.ends_with("LlamaForCausalLM is supported"),
        "{}",
        inspected.decision.reason
    );
    patch_config(dir.path(), "architectures", json!(["MambaForCausalLM"]));
    let inspected = inspect(&open(dir.path()), None).expect("inspects");
    assert_eq!(inspected.decision.backend, Backend::Container);
    write(dir.path(), "cog.yaml", "predict: p.py:P\n");
    let inspected = inspect(&open(dir.path()), None).expect("inspects");
    assert!(inspected.native.is_none());
    let error =
        load_resolved(inspected, &LoadOptions::default(), &silent()).expect_err("has a runner");
    assert_eq!(error.code(), "not_native");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_config_makes_loading_panic(key in "(hidden_size|intermediate_size|num_hidden_layers|num_attention_heads|num_key_value_heads|head_dim|vocab_size|rope_theta|rope_scaling|rms_norm_eps|max_position_embeddings|sliding_window|tie_word_embeddings|eos_token_id|torch_dtype)",
        value in prop_oneof![any::<i64>().prop_map(|v| json!(v)), any::<f64>().prop_map(|v| json!(v)), Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("x")), Just(json!(true))]) {
        let dir = package();
        patch_config(dir.path(), &key, value);
        if let Err(error) = load_from(dir.path()) {
            prop_assert!(!error.code().is_empty());
        }
    }
}

#[test]
fn the_starter_package_loads_from_the_binary_and_chats() {
    let loaded = load(&crate::starter::files(), &LoadOptions::default(), &silent()).expect("loads");
    assert_eq!(loaded.architecture, "LlamaForCausalLM");
    assert_eq!(
        loaded.defaults.temperature,
        Some(0.0),
        "its generation_config.json has do_sample: false"
    );
    assert_eq!(loaded.warnings, [""; 0]);
    let template = loaded.template.expect("has one");
    let messages = json!([{"role": "user", "content": "Who are you?"}]);
    let input = RenderInput {
        messages: &messages,
        tools: None,
        extra: None,
        add_generation_prompt: true,
        unix_seconds: 0,
    };
    let text = template.render(&input).expect("renders");
    assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
    let ids = loaded.tokenizer.encode_chat(&text).expect("encodes");
    assert_eq!(loaded.tokenizer.decode(&ids, false).expect("decodes"), text);
    let manifest = inspect(&crate::starter::files(), None).expect("inspects").manifest;
    assert_eq!(Manifest::parse(crate::starter::manifest_text()).expect("valid"), manifest);
}

#[test]
fn a_dtype_holds_for_the_matrices_and_makes_the_model_smaller() {
    let dir = package();
    let bytes = |dtype: &str| {
        let options = LoadOptions { dtype: Some(dtype.to_owned()), ..LoadOptions::default() };
        let loaded = load(&open(dir.path()), &options, &silent()).expect(dtype);
        assert_eq!(loaded.dtype, dtype);
        let logits = pinion_models::testing::logits(&*loaded.model, &[1, 5, 9]).expect(dtype);
        assert!(logits.concat().iter().all(|value| value.is_finite()), "{dtype}");
        loaded.spec.weight_bytes
    };
    let [f32, bf16, q8_0, q4_k] = ["f32", "bf16", "q8_0", "q4_k"].map(bytes);
    // Rows this short leave most of a q4_k block empty.
    assert!(q8_0 < bf16 && bf16 < f32 && q4_k < bf16, "{f32} {bf16} {q8_0} {q4_k}");
    write(dir.path(), "cog.yaml", "pinion: {dtype: q8_0}\n");
    assert_eq!(load_from(dir.path()).expect("loads").dtype, "q8_0");
}
