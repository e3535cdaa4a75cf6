//! Whole models: the same tensors, the same config and the same logits as from safetensors.

use super::writer::model_file;
use super::*;
use pinion_kernels::{PackedTensor, WeightType};

use crate::testing::tensors;

/// The tiny Llama and a vocabulary.
pub(super) fn llama_writer() -> Writer {
    let mut writer = model_file("llama", &tiny_config(), &tensors());
    vocabulary::add_gpt2(&mut writer, 97);
    writer
}

pub(super) fn llama_file() -> Vec<u8> {
    llama_writer().finish()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).expect("a number").flatten_all().expect("flat");
    tensor.to_vec1().expect("f32")
}

fn qwen3_config() -> Json {
    json!({"architectures": ["Qwen3ForCausalLM"], "vocab_size": 97, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true})
}

fn qwen2_config() -> Json {
    let mut config = qwen3_config();
    config["architectures"] = json!(["Qwen2ForCausalLM"]);
    config["head_dim"] = json!(8);
    config
}

#[test]
fn every_tensor_and_the_config_come_back() {
    for (architecture, config) in
        [("llama", tiny_config()), ("qwen2", qwen2_config()), ("qwen3", qwen3_config())]
    {
        let parsed = ModelConfig::parse(&config.to_string()).expect("valid");
        let tensors = random_source(&parsed, 3).expect("valid").0;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let stored: HashMap<String, Tensor> = tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).expect("converts")))
                .collect();
            let (_dir, gguf) = open(&model_file(architecture, &config, &stored).finish());
            let gguf = Arc::new(gguf.expect("opens"));
            let found = ModelConfig::parse(&config_json(&gguf).expect("has one")).expect("valid");
            assert_eq!(found.architecture(), parsed.architecture());
            let expected = parsed.tensors().expect("valid");
            assert_eq!(found.tensors().expect("valid"), expected);
            let source = GgufSource::new(gguf, silent()).expect("opens");
            for tensor in expected {
                assert_eq!(source.shape(&tensor.name), Some(tensor.shape.as_slice()));
                let loaded = source.load(&tensor.name).expect("loads").expect("is there");
                assert_eq!(loaded.dtype(), dtype);
                assert_eq!(floats(&loaded), floats(&stored[&tensor.name]), "{}", tensor.name);
            }
            assert!(source.load("no.such.weight").expect("no error").is_none());
        }
    }
}

#[test]
fn a_package_of_one_gguf_file_computes_what_its_safetensors_compute() {
    let (other, dir) = (TempDir::new().expect("one"), TempDir::new().expect("two"));
    crate::testing::write_package(other.path());
    write(dir.path(), "cog.yaml", "build: {}\n");
    write(dir.path(), FILE, llama_file());
    let expected = load_from(other.path()).expect("loads");
    let found = load_from(dir.path()).expect("loads");
    assert_eq!((found.architecture.as_str(), found.dtype.as_str()), ("LlamaForCausalLM", "f32"));
    assert_eq!(found.spec, expected.spec);
    assert_eq!(found.eos_token_ids, [2]);
    assert!(found.template.is_some());
    assert_eq!(found.warnings, [""; 0]);
    let logits = |package: &LoadedPackage| {
        pinion_models::testing::logits(&*package.model, &[1, 5, 9, 2, 77]).expect("computes")
    };
    assert_eq!(logits(&found), logits(&expected));
}

#[test]
fn a_file_is_found_in_its_places_and_by_its_name() {
    for (directory, file, manifest) in [
        ("weights", "model.gguf", "build: {}\n"),
        (".", "x.GGUF", "build: {}\n"),
        (
            "m",
            "b.gguf",
            "model: r/m\nweights: [{name: a, target: /w, source: {uri: ./m/b.gguf}}]\n",
        ),
    ] {
        let dir = TempDir::new().expect("a directory");
        write(dir.path(), "cog.yaml", manifest);
        write(dir.path(), &format!("{directory}/{file}"), llama_file());
        if directory == "m" {
            write(dir.path(), "m/a.gguf", "another file");
        }
        load_from(dir.path()).expect(manifest);
    }
}

#[test]
fn what_lies_beside_the_file_wins_over_its_own_vocabulary() {
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "cog.yaml", "build: {}\n");
    crate::testing::write_metadata(dir.path(), "weights");
    let mut writer = model_file("llama", &tiny_config(), &tensors());
    writer.text("tokenizer.ggml.model", "rwkv");
    write(dir.path(), "weights/model.gguf", writer.finish());
    let loaded = load_from(dir.path()).expect("loads");
    assert_eq!(loaded.tokenizer.encode_chat("ab").expect("encodes"), [3, 4]);
    assert_eq!(loaded.eos_token_ids, [2, 5]);
}

#[test]
fn what_cannot_be_loaded_is_refused_by_its_name() {
    type Change = fn(&mut Writer);
    let cases: &[(&str, Change)] = &[
        ("architecture `mamba` is not supported", |w| w.text("general.architecture", "mamba")),
        ("`general.architecture` is missing", |_| ()),
        ("architecture `llama with experts` is not supported", |w| {
            w.text("general.architecture", "llama");
            w.uint("llama.expert_count", 8);
        }),
        ("`llama.attention.head_count` is missing", |w| w.text("general.architecture", "llama")),
    ];
    for (expected, change) in cases {
        let dir = TempDir::new().expect("a directory");
        write(dir.path(), "cog.yaml", "pinion: {backend: native}\n");
        let mut writer = Writer::default();
        change(&mut writer);
        write(dir.path(), FILE, writer.finish());
        let error = load_from(dir.path()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "cog.yaml", "build: {}\n");
    let mut tensors = tensors();
    let name = "model.layers.1.mlp.down_proj.weight";
    tensors.remove(name);
    let mut writer = model_file("llama", &tiny_config(), &tensors);
    vocabulary::add_gpt2(&mut writer, 97);
    write(dir.path(), FILE, writer.finish());
    assert_eq!(load_from(dir.path()).expect_err("missing").code(), "weights_do_not_fit_config");
}

#[test]
fn positions_are_read_from_the_metadata() {
    let config_of = |change: fn(&mut Writer)| -> Json {
        let mut writer = model_file("llama", &tiny_config(), &tensors());
        change(&mut writer);
        let (_dir, gguf) = open(&writer.finish());
        let text = config_json(&gguf.expect("opens")).expect("has one");
        ModelConfig::parse(&text).expect("valid").tensors().expect("valid");
        serde_json::from_str(&text).expect("JSON")
    };
    let config = config_of(|w| {
        w.text("llama.rope.scaling.type", "yarn");
        w.float("llama.rope.scaling.factor", 4.0);
        w.uint("llama.rope.scaling.original_context_length", 64);
        w.float("llama.rope.freq_base", 5e5);
    });
    assert_eq!(config["rope_theta"], 5e5);
    let scaling = &config["rope_scaling"];
    assert_eq!((&scaling["rope_type"], &scaling["factor"]), (&json!("yarn"), &json!(4.0)));
    assert_eq!(scaling["original_max_position_embeddings"], 64);
    let config = config_of(|w| {
        let factors = [1f32, 2.0, 4.0, 8.0].iter().flat_map(|f| f.to_le_bytes()).collect();
        w.blocks("rope_freqs.weight", 0, &[4], factors);
    });
    assert_eq!(config["rope_scaling"]["short_factor"], json!([1.0, 2.0, 4.0, 8.0]));
}

/// Name, type, columns and bytes of a matrix.
type Stored = (String, WeightType, usize, Vec<u8>);

/// A Llama whose rows are whole blocks of 256, its matrices as llama.cpp mixes them: values wider.
fn mixed_file() -> (Json, Writer, Vec<Stored>) {
    let mut config = tiny_config();
    for (field, size) in [("hidden_size", 256), ("intermediate_size", 512), ("head_dim", 64)] {
        config[field] = json!(size);
    }
    let parsed = ModelConfig::parse(&config.to_string()).expect("valid");
    let tensors = random_source(&parsed, 5).expect("valid").0;
    let vectors = tensors.iter().filter(|(_, tensor)| tensor.rank() == 1);
    let vectors = vectors.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let mut writer = model_file("llama", &config, &vectors);
    vocabulary::add_gpt2(&mut writer, 97);
    let mut stored = Vec::new();
    for tensor in parsed.tensors().expect("valid").iter().filter(|t| t.shape.len() == 2) {
        let (kind, number) = match &tensor.name {
            name if name.contains("v_proj") || name.contains("lm_head") => (WeightType::Q6K, 14),
            name if name.contains("embed") => (WeightType::Q8_0, 8),
            name if name.contains("down_proj") => (WeightType::Q5K, 13),
            _ => (WeightType::Q4K, 12),
        };
        let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
        // Any bytes are blocks; scales are f16, of which the high byte must not say infinity.
        let size = rows * kind.ggml_row_bytes(cols).expect("whole blocks");
        let start = stored.len() as u32;
        let mut state = start.wrapping_mul(0x9E37_79B9).wrapping_add(1);
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x2f
        });
        let bytes: Vec<u8> = bytes.take(size).collect();
        let name = gguf_name(&tensor.name).expect("GGUF has it");
        writer.blocks(&name, number, &[cols as u64, rows as u64], bytes.clone());
        stored.push((tensor.name.clone(), kind, cols, bytes));
    }
    (config, writer, stored)
}

#[test]
fn blocks_reach_the_model_as_they_are_whatever_types_a_layer_mixes() {
    let (config, writer, stored) = mixed_file();
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "cog.yaml", "build: {}\n");
    write(dir.path(), FILE, writer.finish());
    let found = load_from(dir.path()).expect("loads");
    assert_eq!(found.dtype, "q4_k");

    // The same numbers as f32, by another way: each tensor unpacked by itself.
    let (_dir, gguf) = open(&writer.finish());
    let source = GgufSource::new(Arc::new(gguf.expect("opens")), silent()).expect("opens");
    for (name, kind, cols, bytes) in &stored {
        assert_eq!(source.block_type(name), Some(*kind), "{name}");
        let loaded = source.load(name).expect("loads").expect("is there");
        let plain = PackedTensor::from_ggml(*kind, *cols, &[bytes]).expect("blocks");
        let plain = plain.unpack().expect("unpacks");
        let sum = |tensor: &Tensor| tensor.sum_all().and_then(|s| s.to_scalar::<f32>());
        let (a, b) = (sum(&loaded).expect("adds up"), sum(&plain).expect("adds up"));
        // Rows are sorted anew and nothing else.
        assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "{name}: {a} {b}");
    }
    let parsed = ModelConfig::parse(&config.to_string()).expect("valid");
    let weights = pinion_models::Weights::new(Arc::new(source), Some(WeightType::F32));
    let expected = pinion_models::build(&parsed, &weights).expect("builds");
    let (packed, plain) = (found.spec.weight_bytes, expected.spec().weight_bytes);
    assert!(packed * 4 < plain, "{packed} bytes of blocks, {plain} of numbers");
    let tokens = [1, 5, 9, 2, 77];
    let logits = |model: &dyn pinion_models::CausalLm| -> Vec<f32> {
        pinion_models::testing::logits(model, &tokens).expect("computes").concat()
    };
    let (found, expected) = (logits(&*found.model), logits(&*expected));
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        // Quantized products round activations to 8 bits.
        assert!((found - expected).abs() < 0.05 * largest, "{found} {expected} of {largest}");
    }
}

#[test]
fn quantized_weights_are_not_quantized_again_but_can_be_widened() {
    let (_, writer, _) = mixed_file();
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "cog.yaml", "build: {}\n");
    write(dir.path(), FILE, writer.finish());
    let files = PackageFiles::directory(dir.path()).expect("opens");
    let with = |dtype: &str| {
        let options = LoadOptions { dtype: Some(dtype.to_owned()), ..LoadOptions::default() };
        crate::load(&files, &options, &silent())
    };
    assert_eq!(with("f32").expect("widens").dtype, "f32");
    assert_eq!(with("q4_k").expect("is stored so").dtype, "q4_k");
    let error = with("q8_0").expect_err("again");
    assert_eq!(error.code(), "weights_quantized_already");
    assert!(error.to_string().contains("stored as q4_k") && error.hint().is_some(), "{error}");
}

#[test]
fn a_type_of_blocks_that_is_not_read_is_refused_by_its_name() {
    let mut tensors = tensors();
    let name = "model.layers.1.mlp.down_proj.weight";
    let tensor = tensors.remove(name).expect("is there");
    let mut writer = model_file("llama", &tiny_config(), &tensors);
    vocabulary::add_gpt2(&mut writer, 97);
    let (rows, cols) = tensor.dims2().expect("a matrix");
    let bytes = vec![0; rows * cols * 8];
    writer.blocks("blk.1.ffn_down.weight", 28, &[cols as u64, rows as u64], bytes);
    let dir = TempDir::new().expect("a directory");
    write(dir.path(), "cog.yaml", "build: {}\n");
    write(dir.path(), FILE, writer.finish());
    let error = load_from(dir.path()).expect_err("f64");
    assert_eq!(error.code(), "tensor_dtype_not_supported");
    assert!(error.to_string().contains(name) && error.to_string().contains("F64"), "{error}");
}
