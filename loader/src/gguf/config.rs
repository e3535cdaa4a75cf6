//! The metadata of a GGUF file as the `config.json` that models read.

use serde_json::{Map, Value, json};

use super::Gguf;
use super::metadata::Metadata;
use crate::source::WeightsError;

/// Architectures by the names of GGUF and of transformers.
const ARCHITECTURES: &[(&str, &str)] =
    &[("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")];

/// The architecture whose query and key rows GGUF stores with the halves of a head interleaved.
const INTERLEAVED: &str = "llama";

/// One factor for each pair of a head, by which its frequency is divided.
const ROPE_FREQS: &str = "rope_freqs.weight";

/// The text of a `config.json` for this file.
///
/// An architecture that has no name in transformers keeps its own, so that it is refused by name like any other.
pub(crate) fn config_json(gguf: &Gguf) -> Result<String, WeightsError> {
    let metadata = &gguf.metadata;
    let architecture = gguf.architecture()?;
    let known = ARCHITECTURES.iter().find(|(name, _)| *name == architecture);
    let Some((_, class)) = known else {
        return Ok(json!({"architectures": [architecture]}).to_string());
    };
    let key = |name: &str| format!("{architecture}.{name}");
    if metadata.uint(&key("expert_count"))?.is_some_and(|count| 0 < count) {
        return Ok(json!({"architectures": [format!("{architecture} with experts")]}).to_string());
    }
    let heads = metadata.required(&key("attention.head_count"), Metadata::uint)?;
    let hidden = metadata.required(&key("embedding_length"), Metadata::uint)?;
    let head_dim = match metadata.uint(&key("attention.key_length"))? {
        Some(length) => length,
        None => hidden.checked_div(heads).unwrap_or_default(),
    };
    if metadata.uint(&key("attention.value_length"))?.is_some_and(|length| length != head_dim) {
        let problem = format!("differs from attention.key_length: {head_dim}");
        return Err(metadata.wrong(&key("attention.value_length"), problem));
    }
    let has = |tensor: &str| gguf.tensors.contains_key(tensor);
    let vocab_size = gguf.tensors.get("token_embd.weight").map_or(0, |entry| entry.shape[0]);
    let config = json!({
        "architectures": [class],
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": metadata.required(&key("feed_forward_length"), Metadata::uint)?,
        "num_hidden_layers": metadata.required(&key("block_count"), Metadata::uint)?,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.uint(&key("attention.head_count_kv"))?.unwrap_or(heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.required(&key("context_length"), Metadata::uint)?,
        "rms_norm_eps":
            metadata.required(&key("attention.layer_norm_rms_epsilon"), Metadata::float)?,
        "tie_word_embeddings": !has("output.weight"),
        "attention_bias": has("blk.0.attn_q.bias"),
        "mlp_bias": has("blk.0.ffn_up.bias"),
        "eos_token_id": eos_token_ids(metadata)?,
    });
    let mut fields = rope(gguf, architecture, head_dim)?;
    if let Value::Object(config) = config {
        fields.extend(config);
    }
    Ok(Value::Object(fields).to_string())
}

/// Heads whose rows are interleaved, by tensor: those of `attn_q` and those of `attn_k`.
pub(super) fn interleaved_heads(gguf: &Gguf) -> Result<Option<(usize, usize)>, WeightsError> {
    if gguf.architecture()? != INTERLEAVED {
        return Ok(None);
    }
    let metadata = &gguf.metadata;
    let heads = metadata.required("llama.attention.head_count", Metadata::uint)?;
    let kv_heads = metadata.uint("llama.attention.head_count_kv")?.unwrap_or(heads);
    Ok(Some((heads as usize, kv_heads as usize)))
}

/// The fields of `config.json` about positions.
fn rope(
    gguf: &Gguf,
    architecture: &str,
    head_dim: u64,
) -> Result<Map<String, Value>, WeightsError> {
    let metadata = &gguf.metadata;
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let mut fields = Map::new();
    if let Some(base) = metadata.float(&key("freq_base"))? {
        fields.insert("rope_theta".to_owned(), json!(base));
    }
    if let Some(rotated) = metadata.uint(&key("dimension_count"))?
        && rotated != head_dim
    {
        let share = rotated as f64 / head_dim.max(1) as f64;
        fields.insert("partial_rotary_factor".to_owned(), json!(share));
    }
    let context = metadata.required(&format!("{architecture}.context_length"), Metadata::uint)?;
    if let Some(factors) = rope_factors(gguf)? {
        // Frequencies divided by a factor each, at every length: what `longrope` does with one set of factors.
        let scaling = json!({
            "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0,
            "short_factor": factors, "long_factor": factors,
            "original_max_position_embeddings": context,
        });
        fields.insert("rope_scaling".to_owned(), scaling);
        return Ok(fields);
    }
    let Some(kind) = metadata.text(&key("scaling.type"))?.filter(|kind| *kind != "none") else {
        return Ok(fields);
    };
    let mut scaling = Map::new();
    scaling.insert("rope_type".to_owned(), json!(kind));
    let original = metadata.uint(&key("scaling.original_context_length"))?;
    scaling.insert("original_max_position_embeddings".to_owned(), json!(original));
    for (name, field) in [
        ("scaling.factor", "factor"),
        ("scaling.attn_factor", "attention_factor"),
        ("scaling.yarn_beta_fast", "beta_fast"),
        ("scaling.yarn_beta_slow", "beta_slow"),
    ] {
        scaling.insert(field.to_owned(), json!(metadata.float(&key(name))?));
    }
    fields.insert("rope_scaling".to_owned(), Value::Object(scaling));
    Ok(fields)
}

/// The values of `rope_freqs.weight`, where the file has it.
fn rope_factors(gguf: &Gguf) -> Result<Option<Vec<f32>>, WeightsError> {
    let Some(entry) = gguf.tensors.get(ROPE_FREQS) else { return Ok(None) };
    if entry.kind.name() != "F32" {
        return Err(WeightsError::Dtype {
            tensor: ROPE_FREQS.to_owned(),
            file: gguf.path.clone(),
            dtype: entry.kind.name().to_owned(),
        });
    }
    let bytes = &gguf.bytes[entry.begin..entry.end];
    let (values, _) = bytes.as_chunks::<4>();
    Ok(Some(values.iter().map(|value| f32::from_le_bytes(*value)).collect()))
}

/// Tokens that end an answer: of a text, of a turn, of a message.
fn eos_token_ids(metadata: &Metadata) -> Result<Vec<u64>, WeightsError> {
    let mut ids = Vec::new();
    for name in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ids.extend(metadata.uint(&format!("tokenizer.ggml.{name}"))?);
    }
    ids.dedup();
    Ok(ids)
}
