"""Hugging Face's `config.json` as we write it: Llama, Mistral, Qwen3, GLM-4-MoE, DeepSeek-V3.

A shape has one layout, the plainest that can hold it, so that transformers, PEFT, TRL and vLLM load
what we write; vLLM but a Qwen3 of which only some layers slide. `model.foreign_config` reads.
"""

from __future__ import annotations

from typing import Any

from model.config import ModelConfig

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}
PLAIN = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
)
"""Fields of every layout."""
EXPERTS = ("num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob")
ROUTED = (
    "n_shared_experts",
    "first_k_dense_replace",
    "routed_scaling_factor",
    "n_group",
    "topk_group",
)
"""Fields of the layouts whose scores are sigmoid."""
LATENT = ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def layout(config: ModelConfig) -> str:
    """The `model_type` that this shape is written as."""
    if config.latent:
        # Without experts all of its layers are among the first that stay dense.
        return "deepseek_v3"
    if config.num_experts:
        return "qwen3_moe" if config.scoring_func == "softmax" else "glm4_moe"
    if config.use_qk_norm:
        return "qwen3"
    # transformers' Llama wants heads that divide the width; its Mistral does not.
    divides = config.hidden_size % config.num_attention_heads == 0
    return "llama" if divides and config.sliding_window is None else "mistral"


def to_hugging_face(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` with which transformers builds the same model."""
    kind = layout(config)
    written: dict[str, Any] = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        **{name: getattr(config, name) for name in PLAIN},
        "rope_theta": config.ntk_theta,
        "rope_parameters": _rope_parameters(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "float32",
    }
    if "factor" in written["rope_parameters"]:
        written["rope_scaling"] = written["rope_parameters"]  # the name in older readers
    return written | _OWN[kind](config)


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None or scaling.rope_type == "ntk":
        return {"rope_type": "default", "rope_theta": config.ntk_theta}
    written = {"rope_theta": config.rope_theta, **scaling.model_dump(exclude_none=True)}
    kept = {
        "linear": (),
        "dynamic": (),
        "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        "yarn": (
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "attention_factor",
            "truncate",
        ),
    }[scaling.rope_type]
    names = ("rope_type", "rope_theta", "factor", *kept)
    return {name: written[name] for name in names if name in written}


def _qwen3(config: ModelConfig) -> dict[str, Any]:
    window = config.sliding_window
    if window is None:
        return {"use_sliding_window": False}
    kinds = ["full_attention" if w is None else "sliding_attention" for w in config.windows]
    full = kinds.count("full_attention")
    return {
        "use_sliding_window": True,
        "sliding_window": window,
        "layer_types": kinds,
        "max_window_layers": full,
    }


def _qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    slides = config.sliding_window is not None
    return {
        **{name: getattr(config, name) for name in EXPERTS},
        "num_experts": config.num_experts,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(config.first_k_dense_replace)),
        "use_sliding_window": slides,
        "sliding_window": config.sliding_window,
        "max_window_layers": 0 if slides else config.num_hidden_layers,
    }


def _glm4_moe(config: ModelConfig) -> dict[str, Any]:
    rope = _rope_parameters(config) | {"partial_rotary_factor": 1.0}
    return {
        **{name: getattr(config, name) for name in (*EXPERTS, *ROUTED)},
        "n_routed_experts": config.num_experts,
        "use_qk_norm": config.use_qk_norm,
        "partial_rotary_factor": 1.0,
        "rope_parameters": rope,
        "num_nextn_predict_layers": 0,
    }


def _deepseek_v3(config: ModelConfig) -> dict[str, Any]:
    written = {name: getattr(config, name) for name in (*EXPERTS, *ROUTED, *LATENT)}
    written |= {"n_routed_experts": config.num_experts, "q_lora_rank": config.q_lora_rank or None}
    if not config.num_experts:
        # A dense one: no layer comes after the dense ones, so these sizes build nothing.
        written |= {"n_routed_experts": 8, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
        written |= {"n_shared_experts": 1, "first_k_dense_replace": config.num_hidden_layers}
    return written | {
        "head_dim": config.qk_rope_head_dim,
        "rope_interleave": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
    }


_OWN = {
    "llama": lambda config: {"mlp_bias": False},
    "mistral": lambda config: {"sliding_window": config.sliding_window},
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "glm4_moe": _glm4_moe,
    "deepseek_v3": _deepseek_v3,
}
"""What each layout has besides."""
