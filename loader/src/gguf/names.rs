//! Names of tensors: those of a Hugging Face checkpoint, which models ask for, and those of GGUF.

/// Modules outside the layers.
const ROOT: &[(&str, &str)] =
    &[("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Modules of a layer.
const LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The name in a GGUF file of a tensor by its name in a checkpoint; none if GGUF has no such tensor.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    let (module, part) = name.rsplit_once('.')?;
    if !matches!(part, "weight" | "bias") {
        return None;
    }
    let find = |table: &[(&str, &'static str)], module: &str| {
        table.iter().find(|(known, _)| *known == module).map(|(_, found)| *found)
    };
    if let Some(found) = find(ROOT, module) {
        return Some(format!("{found}.{part}"));
    }
    let (layer, module) = module.strip_prefix("model.layers.")?.split_once('.')?;
    layer.parse::<u32>().ok()?;
    Some(format!("blk.{layer}.{}.{part}", find(LAYER, module)?))
}
