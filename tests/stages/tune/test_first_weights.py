"""What a run begins with, read whole and in the parts that ranks hold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from model import initial, pretrained
from model.config import ModelConfig
from model.transformer import Transformer
from stages.tune.checkpoint import slice_of
from stages.tune.first_weights import FirstWeights

CONFIG = ModelConfig(
    vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
    num_attention_heads=4, num_key_value_heads=2, num_experts=4, moe_intermediate_size=8,
    first_k_dense_replace=1, scoring_func="sigmoid", tie_word_embeddings=True,
)  # fmt: skip


@pytest.fixture(params=["drawn", "folder"])
def both(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[FirstWeights, Transformer]:
    """First weights, and the model in memory that has them."""
    monkeypatch.setattr(initial, "BLOCK_NUMBERS", 100)
    torch.manual_seed(3)
    model = Transformer(CONFIG)
    if request.param == "drawn":
        torch.manual_seed(3)
        return FirstWeights.drawn(CONFIG), model
    pretrained.save(model, tmp_path)
    return FirstWeights.of_folder(tmp_path), model


def test_they_are_the_models(both: tuple[FirstWeights, Transformer]) -> None:
    first, model = both
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":  # the embedding is read instead, for it is tied
            assert torch.equal(first.whole(name, "weight"), value), name
        assert not first.kinds(name) and not first.numbers(name)


def test_any_range_of_any_slice_is_read(both: tuple[FirstWeights, Transformer]) -> None:
    first, model = both
    draw = random.Random(0)
    for name, value in model.named_parameters():
        splits = [None] + [
            (dimension, index, 2)
            for dimension in range(value.ndim)
            if value.shape[dimension] % 2 == 0
            for index in range(2)
        ]
        for split in splits:
            flat = slice_of(value.detach(), split).reshape(-1)
            start = draw.randrange(len(flat))
            for low, high in ((0, len(flat)), (start, draw.randint(start + 1, len(flat)))):
                found = first.read(name, "weight", split, low, high)
                assert torch.equal(found, flat[low:high]), (name, split, low, high)
