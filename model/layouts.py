"""Hugging Face's `config.json`, both ways: Llama, Mistral, Qwen3 (MoE too), GLM-4-MoE, DeepSeek-V3.

A shape has one layout, the plainest that can hold it, so that transformers, PEFT, TRL and vLLM load
what we write. What a file asks for and we cannot compute is a ValueError that names it.
"""

from __future__ import annotations

from typing import Any

from model.config import ModelConfig, RopeScaling

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
REQUIRED = PLAIN[:5]
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


def from_hugging_face(found: dict[str, Any]) -> ModelConfig:
    """The shape that a parsed `config.json` describes."""
    kind = found.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"the model's config.json says model_type {kind!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}: other layouts cannot be loaded"
        )
    if lacking := [name for name in REQUIRED if found.get(name) is None]:
        raise ValueError(f"the model's config.json lacks {', '.join(lacking)}; expected its sizes")
    _refuse_what_we_lack(found)
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    fields = {name: found[name] for name in PLAIN if found.get(name) is not None}
    fields.setdefault("rope_theta", rope.get("rope_theta", 10_000.0))
    fields.setdefault("num_key_value_heads", found.get("num_attention_heads"))
    fields.setdefault("tie_word_embeddings", False)
    if kind in ("qwen3", "qwen3_moe"):
        fields.setdefault("head_dim", 128)
    elif "head_dim" not in fields:
        fields["head_dim"] = found["hidden_size"] // found["num_attention_heads"]
    return ModelConfig.model_validate(
        fields
        | {"rope_scaling": _rope_scaling(rope, fields), "use_qk_norm": kind.startswith("qwen3")}
        | _windows(kind, found)
        | _experts(kind, found)
        | _latent(kind, found)
    )


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


def _rope_scaling(rope: dict[str, Any], fields: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "dynamic", "yarn", "llama3"):
        raise ValueError(
            f"the model's config.json scales its rotary embedding by {kind!r}; expected linear, "
            "dynamic, yarn or llama3"
        )
    known = {
        name: rope[name]
        for name in RopeScaling.model_fields
        if name != "rope_type" and rope.get(name) is not None
    }
    context = fields.get("max_position_embeddings")
    if kind in ("yarn", "llama3"):
        known.setdefault("original_max_position_embeddings", context)
    if "factor" not in known and context is not None:
        known["factor"] = context / known["original_max_position_embeddings"]
    return RopeScaling(rope_type=kind, **known)


def _windows(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    window, layers = found.get("sliding_window"), found["num_hidden_layers"]
    if kind in ("qwen3", "qwen3_moe") and not found.get("use_sliding_window"):
        window = None
    if window is None or kind not in ("qwen3", "qwen3_moe", "mistral"):
        return {}
    if kind != "qwen3":
        return {"sliding_window": window}
    kinds = found.get("layer_types")
    if kinds is None:
        first = found.get("max_window_layers", 28)
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if "sliding_attention" not in kinds:
        return {}
    every = all(kind == "sliding_attention" for kind in kinds)
    return {"sliding_window": window, "layer_types": None if every else tuple(kinds)}


def _experts(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    if kind not in ("qwen3_moe", "glm4_moe", "deepseek_v3"):
        return {}
    fields = {name: found[name] for name in EXPERTS if found.get(name) is not None}
    if kind == "qwen3_moe":
        dense = found.get("mlp_only_layers") or []
        if found.get("decoder_sparse_step", 1) != 1 or dense != list(range(len(dense))):
            raise ValueError(
                f"the model's config.json has decoder_sparse_step "
                f"{found.get('decoder_sparse_step')} and mlp_only_layers {dense}; expected experts "
                "in every layer but some at the bottom"
            )
        experts = found.get("num_experts") or found["num_local_experts"]
        own = {"scoring_func": "softmax", "n_shared_experts": 0, "num_experts": experts}
        return {"norm_topk_prob": False} | fields | own | {"first_k_dense_replace": len(dense)}
    fields |= {name: found[name] for name in ROUTED if found.get(name) is not None}
    first = fields.get("first_k_dense_replace", 3 if kind == "deepseek_v3" else 1)
    if first >= found["num_hidden_layers"]:
        return {}
    experts = found.get("n_routed_experts") or found["num_local_experts"]
    return fields | {"num_experts": experts, "first_k_dense_replace": first}


def _latent(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    if kind == "glm4_moe":
        return {"use_qk_norm": bool(found.get("use_qk_norm"))}
    if kind != "deepseek_v3":
        return {}
    return {name: found.get(name) or 0 for name in LATENT} | {"use_qk_norm": False}


def _refuse_what_we_lack(found: dict[str, Any]) -> None:
    rope = found.get("rope_parameters") or {}
    partial = rope.get("partial_rotary_factor", found.get("partial_rotary_factor"))
    if partial is None and found["model_type"] == "glm4_moe":
        partial = 0.5
    unsupported = {
        "attention_bias": bool(found.get("attention_bias")),
        "mlp_bias": bool(found.get("mlp_bias")),
        "hidden_act": found.get("hidden_act", "silu") != "silu",
        "partial_rotary_factor": partial not in (None, 1.0),
        "rope_interleave": found.get("rope_interleave", True) is False,
        "scoring_func": found.get("scoring_func", "sigmoid") != "sigmoid",
        "quantization_config": bool(found.get("quantization_config")),
    }
    if refused := [name for name, is_set in unsupported.items() if is_set]:
        raise ValueError(
            f"the model's config.json sets {', '.join(refused)} to what cannot be computed here; "
            "expected no biases, silu, a wholly rotary head, and weights that are not quantized"
        )


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
