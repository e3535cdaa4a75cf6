"""Writes the weights of a package of `make_model.py` as a GGUF file, for programs that read nothing else.

    python benches/make_gguf.py DIR OUT.gguf

Needs numpy and gguf from PyPI. Matrices stay bf16, bit for bit; vectors become f32, as llama.cpp's converter does it.
Quantized files are made of this one by `llama-quantize`.
"""

import argparse
import json
import pathlib
import struct

import gguf
import numpy as np

MODULES = {
    "input_layernorm": "attn_norm",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.k_proj": "attn_k",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
}
PRE_TOKENIZERS = {"llama": "smollm", "qwen3": "qwen2"}


def add_config(writer, config):
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_dim = config.get("head_dim", hidden // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def add_tokenizer(writer, config, tokenizer, template):
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | {text: token["id"] for text, token in added.items()}
    texts = {id: text for text, id in ids.items()}
    tokens, types = [], []
    for id in range(config["vocab_size"]):
        text = texts.get(id, f"[PAD{id}]")
        if id not in texts:
            kind = gguf.TokenType.UNUSED
        elif text not in added:
            kind = gguf.TokenType.NORMAL
        else:
            kind = gguf.TokenType.CONTROL if added[text]["special"] else gguf.TokenType.USER_DEFINED
        tokens.append(text)
        types.append(kind)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZERS[config["model_type"]])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)


def interleave(rows, heads):
    """The row order of GGUF's `llama` for queries and keys: the halves of a head alternate."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def add_tensors(writer, config, path):
    data = np.memmap(path, dtype=np.uint8, mode="r")
    length = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8 : 8 + length].tobytes())
    outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in tensor["data_offsets"])
        bits = data[begin:end].view(np.uint16).reshape(tensor["shape"])
        gguf_name = outside.get(name)
        if gguf_name is None:
            _, _, layer, module = name.removesuffix(".weight").split(".", 3)
            gguf_name = f"blk.{layer}.{MODULES[module]}.weight"
            if config["model_type"] == "llama" and module == "self_attn.q_proj":
                bits = interleave(bits, config["num_attention_heads"])
            if config["model_type"] == "llama" and module == "self_attn.k_proj":
                bits = interleave(bits, config["num_key_value_heads"])
        if bits.ndim == 1:
            writer.add_tensor(gguf_name, (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            raw = np.ascontiguousarray(bits).view(np.uint8)
            writer.add_tensor(gguf_name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)


def write(package, out):
    weights = package / "weights"
    read = lambda name: json.loads((weights / name).read_text(encoding="utf-8"))
    config = read("config.json")
    writer = gguf.GGUFWriter(out, config["model_type"])
    writer.add_name(package.name)
    add_config(writer, config)
    add_tokenizer(writer, config, read("tokenizer.json"), read("tokenizer_config.json")["chat_template"])
    add_tensors(writer, config, weights / "model.safetensors")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the weights of a package as a GGUF file.")
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    write(args.dir, args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes")
