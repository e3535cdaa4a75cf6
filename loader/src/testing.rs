//! Packages for tests: a random model on disk, its tokenizer and template.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use pinion_models::testing::{random_source, tiny_llama};
use serde_json::{Value, json};

/// `config.json` of the model in `pinion_models::testing::tiny_llama`.
pub(crate) fn config_json() -> Value {
    json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 97, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "eos_token_id": 2})
}

/// The tensors of that model.
pub(crate) fn tensors() -> HashMap<String, Tensor> {
    random_source(&tiny_llama(), 1).expect("the config is valid").0
}

/// Writes text below a directory, which it makes.
pub(crate) fn write(root: &Path, file: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("can be made");
    std::fs::write(path, bytes).expect("can be written");
}

/// A whole package with its weights in one file under `weights/`.
pub(crate) fn write_package(root: &Path) {
    write(root, "cog.yaml", "build:\n  gpu: false\n");
    write_metadata(root, "weights");
    candle_core::safetensors::save(&tensors(), root.join("weights/model.safetensors"))
        .expect("can be saved");
}

/// Config, tokenizer and template in `directory`.
pub(crate) fn write_metadata(root: &Path, directory: &str) {
    let put =
        |file: &str, value: Value| write(root, &format!("{directory}/{file}"), value.to_string());
    put("config.json", config_json());
    put("tokenizer.json", crate::tokenizer::tests::tokenizer_json());
    put(
        "tokenizer_config.json",
        json!({"bos_token": "<s>", "eos_token": {"content": "</s>"},
            "chat_template": "{% for m in messages %}{{ m.content }}.{% endfor %}"}),
    );
    put(
        "generation_config.json",
        json!({"eos_token_id": [2, 5], "temperature": 0.6, "top_p": 0.9, "top_k": 50}),
    );
}

/// Writes the tensors in two shards and an index.
pub(crate) fn write_shards(root: &Path, directory: &str) {
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut weight_map = serde_json::Map::new();
    for (at, (name, tensor)) in tensors().into_iter().enumerate() {
        weight_map
            .insert(name.clone(), json!(format!("model-0000{}-of-00002.safetensors", at % 2 + 1)));
        shards[at % 2].insert(name, tensor);
    }
    for (at, shard) in shards.iter().enumerate() {
        let file = root.join(directory).join(format!("model-0000{}-of-00002.safetensors", at + 1));
        candle_core::safetensors::save(shard, file).expect("can be saved");
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    write(root, &format!("{directory}/model.safetensors.index.json"), index.to_string());
}
