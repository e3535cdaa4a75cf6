"""The models of the oracle: one small `config.json` each, chosen so that every branch of a family is taken.

Sizes are odd on purpose: a vocabulary that is no multiple of 64, heads whose width is not hidden / heads,
every grouping of heads, windows shorter than the text, scaled positions on both sides of the original context.
"""

PROMPT_TOKENS = 40
GREEDY_TOKENS = 64

BASE = dict(
    vocab_size=101,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    hidden_act="silu",
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
    # Ends no text early.
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)

# Per pair of a 16-wide head, as longrope wants them.
SHORT_FACTOR = [1.0, 1.05, 1.1, 1.3, 1.5, 1.8, 2.0, 2.2]
LONG_FACTOR = [1.0, 1.4, 2.0, 3.1, 4.5, 6.0, 8.0, 11.0]


def llama(**changes):
    return BASE | dict(architectures=["LlamaForCausalLM"], model_type="llama") | changes


def mistral(**changes):
    return BASE | dict(architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=2) | changes


def qwen2(**changes):
    return BASE | dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6) | changes


def qwen3(**changes):
    family = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6)
    return BASE | family | dict(head_dim=32, num_key_value_heads=2) | changes


def with_parameters(config, **rope):
    """The layout of transformers 5: `rope_parameters` holds theta too, and nothing stands beside it."""
    config = {name: value for name, value in config.items() if name != "rope_theta"}
    return config | dict(rope_parameters=dict(rope_theta=10000.0) | rope)


CASES = {
    "llama-mha": llama(),
    "llama-gqa-tied": llama(num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True),
    "llama-mqa-biases": llama(num_key_value_heads=1, attention_bias=True, mlp_bias=True),
    "llama-head-dim": llama(hidden_size=48, head_dim=32, num_key_value_heads=2, num_hidden_layers=3),
    "llama-odd-sizes": llama(
        vocab_size=67, hidden_size=40, intermediate_size=57, num_attention_heads=5, num_key_value_heads=5
    ),
    "rope-theta": llama(rope_theta=500.0, num_key_value_heads=2),
    "rope-parameters": with_parameters(llama(), rope_type="default", rope_theta=300.0),
    "rope-linear": llama(rope_scaling=dict(type="linear", factor=4.0)),
    "rope-dynamic": llama(rope_scaling=dict(type="dynamic", factor=4.0), max_position_embeddings=128),
    "rope-llama3": llama(
        rope_scaling=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        )
    ),
    "rope-yarn": with_parameters(llama(), rope_type="yarn", factor=8.0, original_max_position_embeddings=32),
    "rope-yarn-mscale": with_parameters(
        llama(head_dim=32),
        rope_type="yarn",
        factor=8.0,
        original_max_position_embeddings=32,
        mscale=1.0,
        mscale_all_dim=0.5,
        beta_fast=4.0,
        beta_slow=0.5,
        truncate=False,
    ),
    "rope-yarn-attention-factor": llama(
        rope_scaling=dict(type="yarn", factor=4.0, attention_factor=1.25), original_max_position_embeddings=64
    ),
    "rope-longrope-short": llama(
        rope_scaling=dict(
            rope_type="longrope",
            short_factor=SHORT_FACTOR,
            long_factor=LONG_FACTOR,
            original_max_position_embeddings=128,
        )
    ),
    "rope-longrope-long": with_parameters(
        llama(),
        rope_type="longrope",
        short_factor=SHORT_FACTOR,
        long_factor=LONG_FACTOR,
        original_max_position_embeddings=32,
        factor=6.0,
    ),
    "mistral-window": mistral(sliding_window=12),
    "mistral-no-window": mistral(sliding_window=None, head_dim=24, tie_word_embeddings=True),
    "mistral-window-yarn": mistral(
        sliding_window=17,
        num_hidden_layers=3,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64),
    ),
    "qwen2-gqa-tied": qwen2(
        hidden_size=56,
        num_attention_heads=7,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        # A window that is switched off.
        use_sliding_window=False,
        sliding_window=9,
        max_window_layers=0,
    ),
    "qwen2-window": qwen2(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=9, max_window_layers=1, num_key_value_heads=2
    ),
    "qwen2-layer-types": qwen2(
        num_hidden_layers=3,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen2-yarn": qwen2(rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=32)),
    "qwen3-gqa-tied": qwen3(tie_word_embeddings=True),
    "qwen3-mha-bias": qwen3(num_key_value_heads=4, head_dim=8, attention_bias=True),
    "qwen3-window": qwen3(num_hidden_layers=3, use_sliding_window=True, sliding_window=10, max_window_layers=2),
    "qwen3-yarn": with_parameters(qwen3(), rope_type="yarn", factor=4.0, original_max_position_embeddings=64),
}

# Lengths that a package asks for, where they decide which positions a model uses.
MAX_MODEL_LEN = {"rope-longrope-long": 192}
