from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from model.attention import window_mask
from model.config import ModelConfig, keys_seen
from model.kv_cache import KVCache
from model.transformer import Transformer
from tests.model.conftest import small_config


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(tied: bool) -> None:
    config = small_config(tie_word_embeddings=tied)
    assert config.parameters() == sum(p.numel() for p in Transformer(config).parameters())


def test_parameters_without_embedding_are_what_multiplies() -> None:
    tied, untied = small_config(), small_config(tie_word_embeddings=False)
    assert tied.parameters(embedding=False) == tied.parameters()
    assert untied.parameters(embedding=False) == tied.parameters()


@pytest.mark.parametrize("tied", [True, False])
def test_flops_agree_with_counted_matrix_products(tied: bool) -> None:
    """To the last one, in a plain attention kernel: the fused ones are opaque to the counter."""
    config = small_config(tie_word_embeddings=tied)
    model = Transformer(config)
    # N counts the norms' weights too, as PaLM's does; they multiply, but in no matrix product.
    norms = 2 * sum(p.numel() for p in model.parameters() if p.ndim == 1)
    length = 24
    ids = torch.zeros(1, length, dtype=torch.long)
    cache = KVCache(config, length, torch.zeros(1, dtype=torch.long), torch.float32)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        for column in range(length):
            model(ids[:, column : column + 1], cache=cache)
    expected = config.flops_per_token(length, training=False) - norms
    assert counter.get_total_flops() == length * expected
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(ids).sum().backward()
    # The plain kernel multiplies what the mask hides, too: each token looks at `length` keys, as
    # one of a sequence of 2 * length - 1 does on average.
    expected = config.flops_per_token(2 * length - 1) - 3 * norms
    assert counter.get_total_flops() == length * expected


VARIANTS = {
    "llama": {"use_qk_norm": False, "num_key_value_heads": 6},
    "latent": {"kv_lora_rank": 12, "q_lora_rank": 20, "v_head_dim": 24},
    "latent-direct": {"kv_lora_rank": 12, "v_head_dim": 24, "qk_nope_head_dim": 16},
    "experts": {"num_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1},
    "softmax-experts": {"num_experts": 4, "scoring_func": "softmax", "tie_word_embeddings": False},
    "latent-experts": {"kv_lora_rank": 12, "v_head_dim": 24, "num_experts": 4},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_counts_its_parameters(name: str) -> None:
    config = small_config(**VARIANTS[name])
    model = Transformer(config)
    assert config.parameters() == sum(p.numel() for p in model.parameters())
    idle = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    idle *= 1 - config.num_experts_per_tok / max(config.num_experts, 1)
    assert config.parameters(active=True) == config.parameters() - idle


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_counts_its_flops(name: str) -> None:
    """In float64, where experts' products are single ones: the grouped one is not counted."""
    config = small_config(**VARIANTS[name])
    model = Transformer(config).double()
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    length = 24
    ids = torch.arange(length)[None]
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(ids).sum().backward()
    expected = config.flops_per_token(2 * length - 1) - 6 * norms
    # Weighing a token's experts is a product, too, of a vector with as many rows.
    weighing = sum(map(config.has_experts, range(config.num_hidden_layers)))
    weighing *= 6 * config.num_experts_per_tok * config.hidden_size
    assert counter.get_total_flops() == length * (expected + weighing)


def test_keys_seen_are_those_of_the_mask() -> None:
    for length, window in ((9, 4), (9, 1), (9, 9), (4, 30), (200, 64)):
        mask = window_mask(length, window, torch.device("cpu"))
        seen = length * (length + 1) / 2 if mask is None else int(mask.sum())
        assert keys_seen(length, window) * length == seen
    assert keys_seen(9, None) == 5
    kinds = ("full_attention", "sliding_attention", "sliding_attention")
    config = small_config(sliding_window=4, layer_types=kinds)
    everything = small_config().flops_per_token(64, training=False)
    spared = 2 * 4 * 6 * 16 * (keys_seen(64, None) - keys_seen(64, 4))
    assert config.flops_per_token(64, training=False) == everything - spared


@pytest.mark.parametrize("changes", [{}, {"kv_lora_rank": 12, "qk_rope_head_dim": 6}])
def test_kv_bytes_are_those_of_the_cache(changes: dict[str, int]) -> None:
    config = small_config(**changes)
    cache = KVCache(config, 7, torch.zeros(3, dtype=torch.long), torch.float32)
    held = sum(t.numel() * t.element_size() for pair in cache.layers for t in pair)
    assert held == 3 * 7 * config.kv_bytes_per_token()
    assert config.kv_bytes_per_token(2) * 2 == config.kv_bytes_per_token()


@pytest.mark.parametrize("depth", [1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 80])
def test_from_depth_gives_shapes_transformers_accepts(depth: int) -> None:
    config = ModelConfig.from_depth(depth, 4096)
    assert config.num_hidden_layers == depth
    with torch.device("meta"):
        twin = Qwen3ForCausalLM(Qwen3Config(**config.to_hugging_face()))
    twin.tie_weights()
    assert config.parameters() == sum(p.numel() for p in twin.parameters())


@pytest.mark.parametrize("depth", [2, 12, 32])
@pytest.mark.parametrize(
    "changes",
    [
        {"use_qk_norm": False},
        {"kv_lora_rank": 64},
        {"num_experts": 16},
        {"num_experts": 16, "scoring_func": "softmax"},
        {"num_experts": 16, "kv_lora_rank": 64, "q_lora_rank": 96, "first_k_dense_replace": 1},
        {"sliding_window": 128},
    ],
)
def test_from_depth_gives_every_kind_by_one_more_word(depth: int, changes: dict[str, Any]) -> None:
    config = ModelConfig.from_depth(depth, 4096, **changes)
    written = config.to_hugging_face()
    with torch.device("meta"):
        described = CONFIG_MAPPING[written["model_type"]](**written)
        twin = AutoModelForCausalLM.from_config(described)
    twin.tie_weights()
    assert config.parameters() == sum(p.numel() for p in twin.parameters())
    assert ModelConfig.from_hugging_face(written) == config
    if config.num_experts:  # as wide for a token as the dense one, by default
        dense = ModelConfig.from_depth(depth, 4096)
        chosen = config.num_experts_per_tok + (config.n_shared_experts or 0)
        width = chosen * config.moe_intermediate_size
        assert abs(width - dense.intermediate_size) <= 4 * chosen


def test_from_depth_grows_and_4_is_the_tiny_model() -> None:
    sizes = [ModelConfig.from_depth(depth, 4096).parameters() for depth in range(1, 60)]
    assert sizes == sorted(sizes)
    assert ModelConfig.from_depth(4, 4096) == ModelConfig()
    assert 1.0e6 < ModelConfig().parameters() < 1.5e6
    with pytest.raises(ValueError, match="depth is 0; expected at least 1"):
        ModelConfig.from_depth(0, 4096)


def test_hugging_face_round_trip_and_refusals() -> None:
    config = small_config(tie_word_embeddings=False, rope_theta=1e6)
    written = config.to_hugging_face()
    assert ModelConfig.from_hugging_face(written) == config
    assert ModelConfig.from_hugging_face(Qwen3Config(**written).to_dict()) == config
    with pytest.raises(
        ValueError, match="model_type 'gpt2'; expected one of llama, mistral, qwen3"
    ):
        ModelConfig.from_hugging_face({"model_type": "gpt2"})
    with pytest.raises(ValueError, match="lacks hidden_size, intermediate_size"):
        ModelConfig.from_hugging_face({"model_type": "llama", "vocab_size": 9})
    with pytest.raises(ValueError, match="attention_bias, partial_rotary_factor"):
        ModelConfig.from_hugging_face(
            written | {"attention_bias": True, "partial_rotary_factor": 0.5}
        )
    with pytest.raises(ValueError, match="'longrope'; expected linear, dynamic, yarn or llama3"):
        ModelConfig.from_hugging_face(written | {"rope_parameters": {"rope_type": "longrope"}})


def test_bad_shapes_say_found_and_expected() -> None:
    with pytest.raises(ValueError, match=r"num_key_value_heads is 4; .* use one of \[1, 2, 3, 6\]"):
        small_config(num_key_value_heads=4)
    with pytest.raises(ValueError, match=r"head_dim is 15; .* use 16"):
        small_config(head_dim=15)
    with pytest.raises(ValueError, match="hiden_size"):
        small_config(hiden_size=3)
    with pytest.raises(ValueError, match="greater than 0"):
        small_config(vocab_size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok is 5, more than"),
        ({"num_experts": 6, "n_group": 4}, "n_group must divide num_experts"),
        ({"num_experts": 4, "n_group": 4}, "at least two experts in each"),
        (
            {"num_experts": 8, "n_group": 4, "num_experts_per_tok": 3},
            "1 of 4 groups hold 2 experts: raise topk_group",
        ),
        ({"num_experts": 4, "n_shared_experts": 0}, "n_shared_experts is 0"),
        ({"num_experts": 4, "scoring_func": "softmax", "kv_lora_rank": 8}, "kv_lora_rank"),
        ({"num_experts": 4, "sliding_window": 8}, "only Qwen3-MoE slides"),
        ({"kv_lora_rank": 8, "sliding_window": 8}, "latent attention has no sliding layout"),
        ({"sliding_window": 8, "layer_types": ["full_attention"]}, "names 1 layers; .* is 3"),
        ({"layer_types": ["sliding_attention"] * 3}, "sliding_window is not set"),
        (
            {
                "use_qk_norm": False,
                "sliding_window": 8,
                "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            },
            "only dense Qwen3",
        ),
        ({"kv_lora_rank": 8, "qk_rope_head_dim": 7}, "qk_rope_head_dim is 7; .* use 8"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)
