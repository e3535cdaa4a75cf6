"""Writes a checkpoint as a package in HF layout, and holds it to what HF transformers makes of it.

Run: `python export.py CHECKPOINT.pt TOKENIZER.json WEIGHTS_DIRECTORY`
"""

import json
import random
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import chat
from conversations import MIXTURE, make_conversation
from model import ModelConfig
from tokenizer import END, END_OF_TEXT


def model_config(config: ModelConfig) -> dict:
    """`config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "rms_norm_eps": config.rms_norm_eps, "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings, "tie_word_embeddings": True,
        "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "use_cache": True,
    }


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_eos_token": False,
    "eos_token": END, "pad_token": END_OF_TEXT, "clean_up_tokenization_spaces": False,
    "model_max_length": ModelConfig.max_position_embeddings, "chat_template": chat.CHAT_TEMPLATE,
}
GENERATION_CONFIG = {"do_sample": False, "eos_token_id": [2], "pad_token_id": 0}


def tensors(checkpoint: str) -> dict[str, torch.Tensor]:
    """The weights under their HF names, in bfloat16."""
    state = torch.load(checkpoint)
    return {f"model.{name}": tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}


def write_json(path: Path, value: dict) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check_template(directory: Path) -> None:
    """The shipped Jinja template gives the text that training used, token for token."""
    tokenizer, rng = AutoTokenizer.from_pretrained(directory), random.Random(0)
    for _ in range(2000):
        messages, tools = make_conversation(rng, MIXTURE)
        expected = chat.prompt(messages[:-1], tools)
        given = tokenizer.apply_chat_template(
            messages[:-1], tools=tools or None, add_generation_prompt=True, tokenize=False
        )
        assert given == expected, f"the template differs:\n{given!r}\n{expected!r}"


def main() -> None:
    """Export and check."""
    checkpoint, tokenizer_path, target = sys.argv[1:]
    directory = Path(target)
    directory.mkdir(parents=True, exist_ok=True)
    weights = tensors(checkpoint)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)
    shutil.copy(tokenizer_path, directory / "tokenizer.json")
    write_json(directory / "config.json", model_config(ModelConfig()))
    write_json(directory / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(directory / "generation_config.json", GENERATION_CONFIG)
    check_template(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, "
          f"{sum(f.stat().st_size for f in directory.iterdir())} bytes")


if __name__ == "__main__":
    main()
