"""Makes a package of random weights in the shape of a known model, for benchmarks and nothing else.

    python benches/make_model.py smollm2-135m DIR     0.27 GB
    python benches/make_model.py qwen3-0.6b DIR       1.19 GB

Needs numpy and tokenizers from PyPI. Speed depends on shapes and types only, so random weights measure what the real
ones would, without a download. DIR becomes a package that `pinion serve DIR` takes: `cog.yaml`, and in `weights/` the
files of a Hugging Face checkpoint. Weights and tokenizer come from fixed seeds: the same DIR on every machine.

The tokenizer is a byte-level BPE with the real one's size, pre-tokenizer and special tokens, trained on generated
words, so every id decodes to text. English takes two to three times the tokens that the real tokenizer needs: give
prompts in tokens, not in words.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SEED = 42
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SHAPES = {
    "smollm2-135m": dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        attention_bias=False,
        bos_token_id=1,
        eos_token_id=2,
        hidden_act="silu",
        hidden_size=576,
        intermediate_size=1536,
        max_position_embeddings=8192,
        mlp_bias=False,
        num_attention_heads=9,
        num_hidden_layers=30,
        num_key_value_heads=3,
        pad_token_id=2,
        rms_norm_eps=1e-5,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        vocab_size=49152,
    ),
    "qwen3-0.6b": dict(
        architectures=["Qwen3ForCausalLM"],
        model_type="qwen3",
        attention_bias=False,
        bos_token_id=151643,
        eos_token_id=151645,
        head_dim=128,
        hidden_act="silu",
        hidden_size=1024,
        intermediate_size=3072,
        max_position_embeddings=40960,
        max_window_layers=28,
        num_attention_heads=16,
        num_hidden_layers=28,
        num_key_value_heads=8,
        rms_norm_eps=1e-6,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=None,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        use_sliding_window=False,
        vocab_size=151936,
    ),
}

# Where the special tokens begin: before the vocabulary, or behind it.
FIRST_SPECIAL_ID = {"smollm2-135m": 0, "qwen3-0.6b": 151643}


def tensors(config):
    """Names and shapes, in the order of the file."""
    hidden, ff = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, ff)
        yield f"{prefix}.mlp.gate_proj.weight", (ff, hidden)
        yield f"{prefix}.mlp.up_proj.weight", (ff, hidden)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
        if config["model_type"] == "qwen3":
            yield f"{prefix}.self_attn.k_norm.weight", (head_dim,)
            yield f"{prefix}.self_attn.q_norm.weight", (head_dim,)
        yield f"{prefix}.self_attn.k_proj.weight", (kv_heads * head_dim, hidden)
        yield f"{prefix}.self_attn.o_proj.weight", (hidden, heads * head_dim)
        yield f"{prefix}.self_attn.q_proj.weight", (heads * head_dim, hidden)
        yield f"{prefix}.self_attn.v_proj.weight", (kv_heads * head_dim, hidden)
    yield "model.norm.weight", (hidden,)


def bf16(values):
    """f32 to the bits of bf16, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_weights(config, path):
    """`model.safetensors`: norms around one, matrices that keep activations in range. Returns the weights' number."""
    rng = np.random.default_rng(SEED)
    listed = list(tensors(config))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in listed:
        size = int(np.prod(shape)) * 2
        header[name] = dict(dtype="BF16", shape=list(shape), data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in listed:
            values = rng.standard_normal(shape, dtype=np.float32)
            if "norm" in name:
                values = np.float32(1) + np.float32(0.05) * values
            else:
                values *= np.float32(0.02 if "embed" in name else shape[-1] ** -0.5)
            file.write(bf16(values).tobytes())
    return offset // 2


def corpus(rng, num_words):
    """Lines of generated words, short ones often and long ones seldom, with numbers and punctuation between."""
    onsets = "b c ch d f g h j k l m n p pr qu r s sh st str t th tr v w y z".split()
    vowels = "a ai e ea ee i ie o oo ou u".split()
    codas = ["", "", "", "l", "n", "nd", "ng", "r", "rs", "s", "st", "t", "tion", "x"]
    syllables = [onset + vowel + coda for onset in onsets for vowel in vowels for coda in dict.fromkeys(codas)]
    lengths = rng.choice([1, 2, 3, 4], num_words, p=[0.1, 0.4, 0.35, 0.15])
    picked = rng.integers(0, len(syllables), (num_words, 4))
    words = ["".join(syllables[i] for i in row[:n]) for row, n in zip(picked.tolist(), lengths.tolist())]
    # Each word often enough to be learned whole, in lines of sixteen.
    order = rng.permutation(np.tile(np.arange(num_words), 3))
    marks = rng.choice(["", "", "", "", ",", ".", " 12", " 2026", ":", "\n"], len(order))
    for start in range(0, len(order), 16):
        chunk = range(start, min(start + 16, len(order)))
        yield " ".join(words[order[i]] + marks[i] for i in chunk)


def train_tokenizer(name, config):
    """The `tokenizer.json` of a shape, as a dict."""
    tokenizer = Tokenizer(models.BPE())
    if name == "qwen3-0.6b":
        split = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        split = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    first_special = FIRST_SPECIAL_ID[name]
    vocab_size = first_special or config["vocab_size"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[] if first_special else SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(np.random.default_rng(SEED), 2 * vocab_size), trainer)
    trained = json.loads(tokenizer.to_str())
    vocab = trained["model"]["vocab"]
    if len(vocab) != vocab_size:
        raise SystemExit(f"the corpus gave {len(vocab)} tokens, {vocab_size} are needed")
    if first_special:
        # Special tokens behind the vocabulary, and names for the ids that the model has beyond.
        reserved = config["vocab_size"] - vocab_size - len(SPECIAL_TOKENS)
        added = SPECIAL_TOKENS + [f"<|reserved_{i}|>" for i in range(reserved)]
        flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
        trained["added_tokens"] = [
            dict(id=vocab_size + i, content=text, special=i < len(SPECIAL_TOKENS)) | flags
            for i, text in enumerate(added)
        ]
    return trained


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Makes a package of random weights in the shape of a known model.")
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("dir", type=pathlib.Path)
    args = parser.parse_args()
    config, weights = SHAPES[args.name], args.dir / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    write_json(weights / "config.json", config)
    ids = dict(bos_token_id=config["bos_token_id"], eos_token_id=config["eos_token_id"])
    write_json(weights / "generation_config.json", ids)
    write_json(weights / "tokenizer.json", train_tokenizer(args.name, config))
    tokens = dict(eos_token="<|im_end|>", model_max_length=config["max_position_embeddings"])
    write_json(weights / "tokenizer_config.json", tokens | dict(chat_template=CHAT_TEMPLATE))
    count = write_weights(config, weights / "model.safetensors")
    (args.dir / "cog.yaml").write_text(f"weights:\n  - name: {args.name}\n    target: /weights\n    source:\n      uri: ./weights\n")
    print(f"{args.dir}: {count} weights, {config['vocab_size']} tokens")


if __name__ == "__main__":
    main()
