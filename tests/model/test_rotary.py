from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from model.config import ModelConfig, RopeScaling
from model.rotary import halves, rotary_tables
from tests.model.conftest import small_config

SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn-untruncated": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "truncate": False,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.3,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
}


@pytest.mark.parametrize("length", [2048, 5000])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_transformers(name: str, length: int) -> None:
    """At position 1 a pair's angle is its frequency; `length` is the longest of the batch."""
    config = small_config(head_dim=64, rope_theta=5e5, rope_scaling=SCALINGS[name])
    theirs = Qwen3Config(**config.to_hugging_face())
    frequencies, size = ROPE_INIT_FUNCTIONS[SCALINGS[name]["rope_type"]](theirs, seq_len=length)
    cos, sin = rotary_tables(torch.tensor([[0, 1, length - 1]]), config)
    both = torch.cat((frequencies, frequencies))
    torch.testing.assert_close(cos[0, 0, 0], torch.full((64,), float(size)))
    torch.testing.assert_close(cos[0, 0, 1], both.cos() * size)
    torch.testing.assert_close(sin[0, 0, 1, 32:], frequencies.sin() * size)
    # Further out float32's rounding of a frequency grows with the position.
    torch.testing.assert_close(cos[0, 0, 2], (both * (length - 1)).cos() * size, atol=1e-3, rtol=0)


def test_dynamic_stretches_each_row_by_its_own_length() -> None:
    config = small_config(
        max_position_embeddings=16, rope_scaling={"rope_type": "dynamic", "factor": 2.0}
    )
    both = rotary_tables(torch.stack((torch.arange(40), torch.arange(40).clamp_max(9))), config)
    alone = rotary_tables(torch.arange(10)[None], config)
    plain = rotary_tables(torch.arange(10)[None], small_config())
    torch.testing.assert_close(both[0][1, :, :10], alone[0][0])
    torch.testing.assert_close(alone, plain)
    assert (both[0][0, :, :10] - alone[0][0]).abs().max() > 0.1


def test_ntk_stretches_the_longest_wave_by_its_factor() -> None:
    config = small_config(head_dim=64, rope_scaling={"rope_type": "ntk", "factor": 4.0})
    _, stretched = rotary_tables(torch.tensor([[1]]), config)
    _, plain = rotary_tables(torch.tensor([[1]]), small_config(head_dim=64))
    ratio = plain[0, 0, 0, 32:].asin() / stretched[0, 0, 0, 32:].asin()
    assert float(ratio[0]) == pytest.approx(1)
    assert float(ratio[-1]) == pytest.approx(4, rel=1e-4)


def test_interleaved_pairs_become_halves() -> None:
    assert halves(torch.arange(6)).tolist() == [0, 2, 4, 1, 3, 5]


def test_scaling_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="yarn needs original_max_position_embeddings"):
        RopeScaling(rope_type="yarn", factor=2)
    with pytest.raises(ValueError, match="rotary width of 2"):
        ModelConfig(head_dim=2, rope_scaling=RopeScaling(rope_type="ntk", factor=2))
