//! What is wrong with a package is said before and while it is served, and ends nothing else.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{Node, Package, chat_body, pinion};

/// `pinion check` on a damaged starter: its exit code and what it printed on standard error.
fn check(damage: impl FnOnce(&Package)) -> (i32, String) {
    let package = Package::starter();
    damage(&package);
    let output = pinion(&["check", &package.name()]).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The damage is refused with exit code 1 and an error that holds each of the words.
#[track_caller]
fn refused(words: &[&str], damage: impl FnOnce(&Package)) {
    let (code, text) = check(damage);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

fn config(package: &Package, change: impl FnOnce(&mut Value)) {
    package.edit("weights/config.json", change);
}

#[test]
fn a_sound_package_passes() {
    let (code, text) = check(|_| {});
    assert_eq!(code, 0, "{text}");
}

#[test]
fn missing_weights_are_named() {
    refused(&["safetensors"], |package| {
        package.remove("weights/model.safetensors");
    });
}

#[test]
fn truncated_weights_are_named_at_any_length() {
    let whole = Package::starter().read("weights/model.safetensors");
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        refused(&["model.safetensors"], |package| {
            package.write("weights/model.safetensors", &whole[..length]);
        });
    }
}

#[test]
fn tensors_of_wrong_shape_are_named_with_both_shapes() {
    refused(&["model.", "expected"], |package| {
        config(package, |config| config["intermediate_size"] = json!(400));
    });
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    refused(&["FancyForCausalLM", "LlamaForCausalLM"], |package| {
        config(package, |config| config["architectures"] = json!(["FancyForCausalLM"]));
    });
}

#[test]
fn absurd_sizes_are_refused() {
    for (field, value) in [
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1_u64 << 40)),
        ("vocab_size", json!(-1)),
        ("rope_theta", json!(0)),
    ] {
        refused(&[], |package| config(package, |config| config[field] = value));
    }
}

#[test]
fn a_config_that_is_no_json_is_refused() {
    refused(&["config.json"], |package| {
        package.write("weights/config.json", "{\"architectures\": [");
    });
}

#[test]
fn broken_tokenizers_are_refused() {
    for text in ["{", "{\"decoder\":[}}}", "[]", "{\"version\": \"1.0\", \"model\": 3}"] {
        refused(&["tokenizer"], |package| {
            package.write("weights/tokenizer.json", text);
        });
    }
}

#[test]
fn a_template_that_does_not_parse_is_refused() {
    refused(&["template"], |package| {
        package.template("{% for message in messages %}");
    });
}

#[test]
fn every_mistake_in_cog_yaml_is_reported_at_once_with_its_place() {
    refused(&["cog.yaml:2:", "cog.yaml:3:", "hint: ", "2 errors"], |package| {
        package.write("cog.yaml", "pinion:\n  dtype: bf17\n  max_model_len: long\n");
    });
}

#[test]
fn a_package_with_a_runner_is_not_served_natively() {
    refused(&["container"], |package| {
        package.write("cog.yaml", "build:\n  python_version: '3.12'\nrun: run.py:Runner\n");
    });
}

#[test]
fn weights_in_a_pickle_are_refused() {
    refused(&["pytorch_model.bin"], |package| {
        package.remove("weights/model.safetensors").write("weights/pytorch_model.bin", "gASV");
    });
}

#[test]
fn weights_outside_the_package_are_refused() {
    let index = json!({ "weight_map": { "model.norm.weight": "../../../etc/passwd" } });
    refused(&["passwd"], |package| {
        package
            .remove("weights/model.safetensors")
            .write("weights/model.safetensors.index.json", index.to_string());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_bad_package_says_so_and_serves_the_others() {
    let bad = Package::starter();
    bad.write("weights/model.safetensors", "short");
    let good = Package::starter();
    let good_path = good.path().with_file_name("good");
    std::fs::rename(good.path(), &good_path).unwrap();
    let node = Node::start(&[&bad.name(), good_path.to_str().unwrap()]);
    node.until("answering", async || node.chat("good", "Hello").await.0 == StatusCode::OK).await;
    node.line_with("mine: error: ");
    let (status, answer) = node.chat("mine", "Hello").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    assert_eq!(answer["error"]["code"], "model_failed");
    assert!(answer["error"]["message"].as_str().unwrap().contains("model.safetensors"), "{answer}");
    assert_eq!(node.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(node.get("/livez").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_refused_with_both_lengths() {
    let node = Node::ready(&["--max-model-len", "64"]).await;
    let long = "Say: river ".repeat(100);
    let (status, answer) =
        node.post("/v1/chat/completions", &chat_body("pinion-tiny", &long)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    assert!(answer["error"]["message"].as_str().unwrap().contains("64"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regular_expression_that_explodes_ends_one_request_only() {
    let package = Package::starter();
    package.edit("weights/tokenizer.json", |tokenizer| {
        tokenizer["pre_tokenizer"] = json!({
            "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false,
        });
    });
    let node = Node::ready(&[&package.name()]).await;
    let poison = format!("{}!", "a".repeat(40));
    let (status, answer) = node.chat("mine", &poison).await;
    assert!(status.is_client_error() || status.is_server_error() || status.is_success());
    assert!(answer.is_object(), "{answer}");
    let (status, answer) = node.chat("mine", "b").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}
