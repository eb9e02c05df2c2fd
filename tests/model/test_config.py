from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from model.attention import KVCache
from model.config import ModelConfig
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


def test_kv_bytes_are_those_of_the_cache() -> None:
    config = small_config()
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
