"""A Hugging Face `config.json` as a shape: what `model.layouts` writes, and what others wrote.

What a file asks for and we cannot compute is a ValueError that names it; what it does not say is
what transformers would take.
"""

from __future__ import annotations

from typing import Any

from model.config import ModelConfig, RopeScaling
from model.layouts import ARCHITECTURES, EXPERTS, LATENT, PLAIN, ROUTED

REQUIRED = PLAIN[:5]
"""The sizes without which nothing is known."""
_QWEN3 = {"max_position_embeddings": 32768, "sliding_window": 4096}
_SIGMOID = {"n_shared_experts": 1, "num_experts_per_tok": 8}
UNSAID: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "num_key_value_heads": None},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen3": _QWEN3 | {"num_key_value_heads": 32, "head_dim": 128},
    "qwen3_moe": _QWEN3
    | {
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
    },
    "glm4_moe": _SIGMOID
    | {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "n_routed_experts": 128,
        "moe_intermediate_size": 1408,
        "first_k_dense_replace": 1,
    },
    "deepseek_v3": _SIGMOID
    | {
        "max_position_embeddings": 4096,
        "n_routed_experts": 256,
        "moe_intermediate_size": 2048,
        "first_k_dense_replace": 3,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
}
"""What a layout's model has where its file is silent: the defaults of transformers' configuration
classes, where they are not `ModelConfig`'s own."""


def from_hugging_face(found: dict[str, Any]) -> ModelConfig:
    """The shape that a parsed `config.json` describes."""
    try:
        return _shape(found)
    except (TypeError, AttributeError, KeyError, ZeroDivisionError) as error:
        raise ValueError(
            f"the model's config.json holds a value of another kind than its place is for "
            f"({type(error).__name__}: {error}); expected it as transformers writes it"
        ) from error


def _shape(found: dict[str, Any]) -> ModelConfig:
    kind = found.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"the model's config.json says model_type {kind!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}: other layouts cannot be loaded"
        )
    if lacking := [name for name in REQUIRED if found.get(name) is None]:
        raise ValueError(f"the model's config.json lacks {', '.join(lacking)}; expected its sizes")
    found = UNSAID[kind] | found
    rope = _rope(found)
    _refuse_what_we_lack(found, rope)
    fields = {name: found[name] for name in PLAIN if found.get(name) is not None}
    fields["rope_theta"] = rope["rope_theta"]
    fields.setdefault("num_key_value_heads", found["num_attention_heads"])
    fields.setdefault("tie_word_embeddings", False)
    if "head_dim" not in fields:
        fields["head_dim"] = found["hidden_size"] // found["num_attention_heads"]
    return ModelConfig.model_validate(
        fields
        | {"rope_scaling": _rope_scaling(rope, fields), "use_qk_norm": kind.startswith("qwen3")}
        | _windows(kind, found)
        | _experts(kind, found)
        | _latent(kind, found)
    )


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's values, gathered as transformers does: what stands in `rope_scaling`,
    the older name, goes before `rope_parameters`, and what stands in either before the top level,
    but for the length trained on.
    """
    rope = {} | (found.get("rope_scaling") or found.get("rope_parameters") or {})
    rope.setdefault("rope_theta", found.get("rope_theta", 10_000.0))
    rope.setdefault("partial_rotary_factor", found.get("partial_rotary_factor"))
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    trained = found.get("original_max_position_embeddings")
    if trained is not None:
        rope["original_max_position_embeddings"] = trained
    return rope


def _rope_scaling(rope: dict[str, Any], fields: dict[str, Any]) -> RopeScaling | None:
    kind = rope["rope_type"]
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
    for beta in ("beta_fast", "beta_slow"):
        if not known.get(beta):  # 0 is unset to transformers
            known.pop(beta, None)
    context = fields["max_position_embeddings"]
    if kind in ("yarn", "llama3"):
        known.setdefault("original_max_position_embeddings", context)
    if "factor" not in known:
        if kind != "yarn":
            raise ValueError(
                f"the model's config.json scales its rotary embedding by {kind} and gives no "
                "factor; expected how many times longer a context is to become"
            )
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
        experts = found.get("num_local_experts", found["num_experts"])
        own = {"scoring_func": "softmax", "n_shared_experts": 0, "num_experts": experts}
        return fields | own | {"first_k_dense_replace": len(dense)}
    fields |= {name: found[name] for name in ROUTED if found.get(name) is not None}
    if fields["first_k_dense_replace"] >= found["num_hidden_layers"]:
        return {}
    return fields | {"num_experts": found.get("num_local_experts", found["n_routed_experts"])}


def _latent(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    if kind == "glm4_moe":
        return {"use_qk_norm": bool(found.get("use_qk_norm"))}
    if kind != "deepseek_v3":
        return {}
    return {name: found.get(name) or 0 for name in LATENT} | {"use_qk_norm": False}


def _refuse_what_we_lack(found: dict[str, Any], rope: dict[str, Any]) -> None:
    unsupported = {
        "attention_bias": bool(found.get("attention_bias")),
        "mlp_bias": bool(found.get("mlp_bias")),
        "hidden_act": found.get("hidden_act", "silu") not in ("silu", "swish"),
        "partial_rotary_factor": rope["partial_rotary_factor"] not in (None, 1.0),
        "rope_interleave": found.get("rope_interleave", True) is False,
        "scoring_func": found.get("scoring_func", "sigmoid") != "sigmoid",
        "quantization_config": bool(found.get("quantization_config")),
    }
    if refused := [name for name, is_set in unsupported.items() if is_set]:
        raise ValueError(
            f"the model's config.json sets {', '.join(refused)} to what cannot be computed here; "
            "expected no biases, silu, a wholly rotary head, and weights that are not quantized"
        )
