"""What a shape leaves to be derived, and which shapes cannot be: each refusal says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.config import ModelConfig


def derived(config: ModelConfig) -> dict[str, Any]:
    """Field -> value, of the fields that follow from others."""
    found: dict[str, Any] = {}
    if config.latent:
        found["qk_nope_head_dim"] = config.qk_nope_head_dim or config.head_dim
        found["qk_rope_head_dim"] = config.qk_rope_head_dim or _even(config.head_dim // 2)
        found["v_head_dim"] = config.v_head_dim or config.head_dim
        found["head_dim"] = found["qk_nope_head_dim"] + found["qk_rope_head_dim"]
        found["num_key_value_heads"] = config.num_attention_heads
        found["use_qk_norm"] = False  # its norms are on the latents
    typed = len(config.layer_types or ()) == config.num_hidden_layers
    if config.sliding_window and typed and len(set(config.windows)) == 1:
        # One word for all layers: layouts that have no types of layers would read the window only.
        found |= {"layer_types": None, "sliding_window": config.windows[0]}
    if config.num_experts:
        shared = config.n_shared_experts
        if shared is None:
            shared = 1 if config.scoring_func == "sigmoid" else 0
        together = config.intermediate_size / (config.num_experts_per_tok + shared)
        found["n_shared_experts"] = shared
        found["moe_intermediate_size"] = config.moe_intermediate_size or _eights(together)
    return found


def check(config: ModelConfig) -> None:
    """Refuse a shape whose sizes do not fit together, or that no known layout can hold."""
    _check_heads(config)
    _check_windows(config)
    if config.num_experts:
        _check_experts(config)


def _check_heads(config: ModelConfig) -> None:
    heads = config.num_attention_heads
    if heads % config.num_key_value_heads:
        raise ValueError(
            f"num_key_value_heads is {config.num_key_value_heads}; it must divide "
            f"num_attention_heads ({heads}): use one of "
            f"{[n for n in range(1, heads + 1) if heads % n == 0]}"
        )
    if config.rope_scaling and config.rotary_width < 4:
        raise ValueError(
            f"rope_scaling on a rotary width of {config.rotary_width}; it needs at least two pairs "
            "to tell long waves from short: use 4 or more"
        )


def _check_windows(config: ModelConfig) -> None:
    kinds, layers = config.layer_types, config.num_hidden_layers
    if kinds is not None and len(kinds) != layers:
        raise ValueError(
            f"layer_types names {len(kinds)} layers; num_hidden_layers is {layers}: name each"
        )
    if kinds is not None and config.sliding_window is None and "sliding_attention" in kinds:
        raise ValueError("layer_types has sliding layers but sliding_window is not set: set it")
    windows = set(config.windows)
    if windows == {None}:
        return
    if config.latent:
        raise ValueError(
            f"sliding_window is {config.sliding_window} and kv_lora_rank {config.kv_lora_rank}; "
            "latent attention has no sliding layout: leave one of them out"
        )
    if None in windows and (config.num_experts or not config.use_qk_norm):
        raise ValueError(
            "only some layers slide; among the layouts that others can load, only dense Qwen3 "
            "(use_qk_norm, no experts) has that: let all layers slide, or none"
        )


def _check_experts(config: ModelConfig) -> None:
    experts, chosen = config.num_experts, config.num_experts_per_tok
    if chosen > experts:
        raise ValueError(
            f"num_experts_per_tok is {chosen}, more than num_experts ({experts}): choose fewer"
        )
    if experts % config.n_group or config.topk_group > config.n_group:
        raise ValueError(
            f"n_group is {config.n_group} and topk_group {config.topk_group}; n_group must divide "
            f"num_experts ({experts}), and topk_group be at most n_group"
        )
    if experts // config.n_group < 2:
        raise ValueError(
            f"num_experts is {experts} in n_group {config.n_group}; a group is judged by its best "
            "two: use at least two experts in each"
        )
    if chosen > config.topk_group * (experts // config.n_group):
        raise ValueError(
            f"num_experts_per_tok is {chosen}, but {config.topk_group} of {config.n_group} groups "
            f"hold {config.topk_group * (experts // config.n_group)} experts: raise topk_group"
        )
    if config.scoring_func == "softmax":
        _check_softmax(config)
    elif not config.n_shared_experts:
        raise ValueError(
            "n_shared_experts is 0 with scoring_func sigmoid; DeepSeek's and GLM's layouts have at "
            "least 1: use 1, or scoring_func: softmax"
        )
    elif config.sliding_window:
        raise ValueError(
            "sliding_window with sigmoid-scored experts; of the layouts with experts only "
            "Qwen3-MoE slides: use scoring_func: softmax, or no window"
        )


def _check_softmax(config: ModelConfig) -> None:
    """Qwen3-MoE's layout is the only one with softmax scores."""
    wrong = {
        "kv_lora_rank": config.latent,
        "use_qk_norm": not config.use_qk_norm,
        "n_shared_experts": bool(config.n_shared_experts),
        "routed_scaling_factor": config.routed_scaling_factor != 1.0,
        "n_group": config.n_group != 1,
    }
    if refused := [name for name, found in wrong.items() if found]:
        raise ValueError(
            f"scoring_func softmax is Qwen3-MoE's, which does not go with {', '.join(refused)} as "
            "set: use scoring_func: sigmoid"
        )


def _even(value: int) -> int:
    return max(2, value // 2 * 2)


def _eights(value: float) -> int:
    return max(8, 8 * round(value / 8))
