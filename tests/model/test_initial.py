from __future__ import annotations

import pytest
import torch

from model import initial
from model.initial import initial_rows
from model.transformer import Transformer
from tests.model.conftest import small_config

UP = "model.layers.0.mlp.up_proj.weight"


def test_the_global_seed_decides_a_models_weights() -> None:
    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return Transformer(small_config()).state_dict()

    one, again, other = made(1), made(1), made(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one[UP], other[UP])
    torch.manual_seed(1)
    first, second = Transformer(small_config()), Transformer(small_config())
    assert not torch.equal(first.state_dict()[UP], second.state_dict()[UP])


def test_rows_can_be_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial, "BLOCK_NUMBERS", 100)
    config, shape = small_config(), (37, 5, 3)
    whole = initial_rows("w", shape, config, 9, 0, 37)
    assert whole.shape == shape and len(set(whole.flatten().tolist())) > 550
    for first, last in ((0, 1), (6, 8), (13, 37), (36, 37), (0, 20)):
        rows = initial_rows("w", shape, config, 9, first, last)
        assert torch.equal(rows, whole[first:last])


def test_weights_are_as_wide_as_gpt2s() -> None:
    """0.02, and what writes into the residual stream by the root of its number of writers less."""
    config = small_config(
        hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_experts=4,
        moe_intermediate_size=64, first_k_dense_replace=1, scoring_func="sigmoid",
    )  # fmt: skip
    model = Transformer(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert weight.eq(1).all(), name
            continue
        writes = name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj"))
        expected = 0.02 / (4 if writes else 1)
        tolerance = 4 / (2 * weight.numel()) ** 0.5  # four of its standard errors
        assert weight.std().item() == pytest.approx(expected, rel=tolerance), name
        assert abs(weight.mean().item()) < 4 * expected / weight.numel() ** 0.5, name
    assert not any(b.any() for b in model.buffers())
