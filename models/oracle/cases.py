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


def phi3(**changes):
    # Its config class has ids of its own.
    family = dict(architectures=["Phi3ForCausalLM"], model_type="phi3", num_key_value_heads=2)
    return BASE | family | dict(original_max_position_embeddings=256) | changes


def olmo2(**changes):
    return BASE | dict(architectures=["Olmo2ForCausalLM"], model_type="olmo2") | changes


def granite(**changes):
    family = dict(architectures=["GraniteForCausalLM"], model_type="granite", num_key_value_heads=2)
    multipliers = dict(embedding_multiplier=3.0, attention_multiplier=0.3, residual_multiplier=0.7, logits_scaling=1.5)
    return BASE | family | multipliers | changes


def smollm3(**changes):
    family = dict(architectures=["SmolLM3ForCausalLM"], model_type="smollm3", num_key_value_heads=2)
    return BASE | family | dict(num_hidden_layers=4) | changes


def gemma2(**changes):
    family = dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2", hidden_activation="gelu_pytorch_tanh")
    sizes = dict(num_key_value_heads=2, head_dim=24, query_pre_attn_scalar=20, sliding_window=11, num_hidden_layers=3)
    return BASE | family | sizes | dict(attn_logit_softcapping=2.0, final_logit_softcapping=5.0) | changes


def gemma3(**changes):
    family = dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", hidden_activation="gelu_pytorch_tanh")
    sizes = dict(num_key_value_heads=2, head_dim=32, query_pre_attn_scalar=40, sliding_window=11, num_hidden_layers=4)
    return BASE | family | sizes | dict(rope_theta=3000.0, rope_local_base_freq=200.0) | changes


def gpt2(**changes):
    family = dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", vocab_size=101, n_embd=64, n_layer=2, n_head=4)
    ids = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return family | ids | dict(n_positions=128, tie_word_embeddings=False) | changes


def gpt_neox(**changes):
    family = dict(architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox", hidden_act="gelu", layer_norm_eps=1e-5)
    config = {name: value for name, value in BASE.items() if name not in ("rope_theta", "rms_norm_eps")}
    return config | family | changes


def mixtral(**changes):
    family = dict(architectures=["MixtralForCausalLM"], model_type="mixtral", num_key_value_heads=2)
    return BASE | family | dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=None) | changes


def qwen2_moe(**changes):
    family = dict(architectures=["Qwen2MoeForCausalLM"], model_type="qwen2_moe", num_key_value_heads=2)
    experts = dict(num_experts=6, num_experts_per_tok=3, moe_intermediate_size=40, shared_expert_intermediate_size=72)
    return BASE | family | experts | changes


def qwen3_moe(**changes):
    family = dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_key_value_heads=2, head_dim=32)
    return BASE | family | dict(num_experts=7, num_experts_per_tok=3, moe_intermediate_size=40) | changes


def gpt_oss(**changes):
    family = dict(architectures=["GptOssForCausalLM"], model_type="gpt_oss", num_key_value_heads=2, head_dim=16)
    experts = dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=10)
    yarn = dict(rope_type="yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False)
    return BASE | family | experts | dict(rope_scaling=yarn | dict(original_max_position_embeddings=64)) | changes


def deepseek(version, **changes):
    family = dict(architectures=[f"DeepseekV{version}ForCausalLM"], model_type=f"deepseek_v{version}")
    heads = dict(kv_lora_rank=32, q_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20)
    experts = dict(n_routed_experts=8, n_shared_experts=1, moe_intermediate_size=40, num_experts_per_tok=3)
    return BASE | family | heads | experts | dict(first_k_dense_replace=1, num_hidden_layers=3) | changes


def deepseek2(**changes):
    return deepseek(2, topk_method="greedy", n_group=1, topk_group=1) | changes


def deepseek3(**changes):
    return deepseek(3, n_group=4, topk_group=2, routed_scaling_factor=1.5) | changes


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
    "phi3-window": phi3(sliding_window=13),
    "phi3-longrope-partial": phi3(
        num_key_value_heads=4,
        # Three quarters of 32: Phi-4-mini.
        num_attention_heads=4,
        hidden_size=128,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        original_max_position_embeddings=128,
        rope_scaling=dict(
            type="longrope",
            short_factor=SHORT_FACTOR + [2.3, 2.5, 2.7, 3.0],
            long_factor=LONG_FACTOR + [13.0, 17.0, 20.0, 30.0],
        ),
    ),
    "phi3-longrope-long": phi3(
        num_key_value_heads=1,
        original_max_position_embeddings=32,
        rope_scaling=dict(type="longrope", short_factor=SHORT_FACTOR, long_factor=LONG_FACTOR),
    ),
    "olmo2-mha": olmo2(),
    "olmo2-gqa-bias": olmo2(num_attention_heads=8, num_key_value_heads=2, attention_bias=True, hidden_size=80),
    "granite-gqa": granite(),
    "granite-mha-biases-tied": granite(
        num_key_value_heads=4, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, embedding_multiplier=0.5
    ),
    "smollm3-interval": smollm3(tie_word_embeddings=True),
    "smollm3-window": smollm3(
        no_rope_layers=[1, 0, 1, 0], use_sliding_window=True, sliding_window=11, rope_theta=5000.0
    ),
    "smollm3-biases": smollm3(no_rope_layer_interval=2, attention_bias=True, mlp_bias=True, num_hidden_layers=3),
    "gemma2-caps": gemma2(),
    "gemma2-no-caps-types": gemma2(
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        num_key_value_heads=1,
        attention_bias=True,
    ),
    "gemma2-mha-exact": gemma2(num_key_value_heads=4, hidden_activation="gelu", hidden_size=48),
    "gemma3-pattern": gemma3(sliding_window_pattern=2),
    "gemma3-linear": gemma3(
        rope_scaling=dict(rope_type="linear", factor=4.0), sliding_window_pattern=3, final_logit_softcapping=20.0
    ),
    "gemma3-parameters": {name: value for name, value in gemma3().items() if not name.startswith("rope_")}
    | dict(
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=2.0, rope_theta=900.0),
            sliding_attention=dict(rope_type="default", rope_theta=70.0),
        ),
    ),
    "gpt2-plain": gpt2(),
    "gpt2-odd": gpt2(
        vocab_size=131, n_embd=60, n_head=5, n_inner=97, n_layer=3, scale_attn_by_inverse_layer_idx=True
    ),
    "gpt2-exact": gpt2(
        activation_function="gelu", scale_attn_weights=False, layer_norm_epsilon=1e-3, n_layer=3
    ),
    "gpt_neox-quarter": gpt_neox(rotary_pct=0.25, rotary_emb_base=300),
    "gpt_neox-sequential": gpt_neox(
        use_parallel_residual=False, attention_bias=False, rotary_pct=1.0, hidden_act="gelu_fast", num_hidden_layers=3
    ),
    "gpt_neox-odd": gpt_neox(hidden_size=56, num_attention_heads=7, rotary_pct=0.5),
    "mixtral-window": mixtral(sliding_window=14),
    "mixtral-odd-sizes-tied": mixtral(
        intermediate_size=57, num_local_experts=3, num_experts_per_tok=1, head_dim=24, tie_word_embeddings=True
    ),
    "qwen2_moe-normalized": qwen2_moe(norm_topk_prob=True, qkv_bias=False),
    "qwen2_moe-sparse-step": qwen2_moe(
        num_hidden_layers=3, decoder_sparse_step=2, use_sliding_window=True, sliding_window=9, max_window_layers=2
    ),
    "qwen3_moe-normalized": qwen3_moe(norm_topk_prob=True),
    "qwen3_moe-dense-layers": qwen3_moe(
        num_hidden_layers=3, mlp_only_layers=[1], attention_bias=True, use_sliding_window=True, sliding_window=15
    ),
    "gpt_oss-yarn": gpt_oss(),
    "gpt_oss-types": gpt_oss(
        num_hidden_layers=3,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        num_key_value_heads=1,
        attention_bias=False,
        swiglu_limit=0.6,
        num_experts_per_tok=3,
        intermediate_size=44,
    ),
    "gpt_oss-mxfp4": gpt_oss(quantization_config=dict(quant_method="mxfp4")),
    "deepseek2-greedy": deepseek2(),
    "deepseek2-groups": deepseek2(
        topk_method="group_limited_greedy",
        n_group=4,
        topk_group=2,
        q_lora_rank=None,
        routed_scaling_factor=2.0,
        first_k_dense_replace=0,
        n_shared_experts=2,
        num_hidden_layers=2,
    ),
    "deepseek3-groups": deepseek3(),
    "deepseek3-yarn": deepseek3(
        q_lora_rank=None,
        norm_topk_prob=False,
        qk_nope_head_dim=12,
        v_head_dim=8,
        rope_scaling=dict(
            type="yarn",
            factor=4.0,
            original_max_position_embeddings=64,
            mscale=1.0,
            mscale_all_dim=0.8,
            beta_fast=32,
            beta_slow=1,
        ),
    ),
    "deepseek3-halves": deepseek3(rope_interleave=False, n_group=1, topk_group=1, num_attention_heads=2, num_key_value_heads=2),
}

# Lengths that a package asks for, where they decide which positions a model uses.
MAX_MODEL_LEN = {"rope-longrope-long": 192, "phi3-longrope-long": 192}
