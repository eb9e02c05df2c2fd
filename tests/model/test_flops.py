from __future__ import annotations

import numpy as np
import pytest
import torch

from model.attention import document_mask
from model.flops import document_lengths, packed_flops_per_token, peak_flops
from tests.model.conftest import small_config


@pytest.mark.parametrize("window", [None, 1, 12, 100])
def test_packed_documents_count_the_pairs_the_mask_leaves(window: int | None) -> None:
    """Against the dense mask's own number of pairs, at 4 FLOPs a pair and channel."""
    config = small_config(sliding_window=window)
    lengths = [9, 14, 1, 40]
    documents = torch.arange(4).repeat_interleave(torch.tensor(lengths))[None]
    mask = document_mask(documents, window)
    assert isinstance(mask, torch.Tensor)
    width = config.num_attention_heads * config.head_dim
    scores_and_sums = 4 * width * int(mask.sum()) * config.num_hidden_layers
    expected = 2 * config.parameters(embedding=False) + scores_and_sums / sum(lengths)
    found = packed_flops_per_token(config, lengths, training=False)
    assert found == pytest.approx(expected, rel=1e-12)
    assert packed_flops_per_token(config, lengths) == pytest.approx(3 * expected, rel=1e-12)
    assert packed_flops_per_token(config, [64]) == config.flops_per_token(64)


@pytest.mark.parametrize(
    ("name", "bfloat16", "float8"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12, 1978.9e12),
        ("NVIDIA H100 NVL", 835.5e12, 1671e12),
        ("NVIDIA H100 PCIe", 756e12, 1513e12),
        ("NVIDIA H200", 989.4e12, 1978.9e12),
        ("NVIDIA H200 NVL", 835.5e12, 1671e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, None),
        ("NVIDIA GB200", 2.5e15, 5.0e15),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 330.3e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None, None),
        ("GRID A100-10C", None, None),
        ("cpu", None, None),
    ],
)
def test_peaks_go_by_the_devices_name(
    name: str, bfloat16: float | None, float8: float | None
) -> None:
    assert peak_flops(name) == bfloat16
    assert peak_flops(name, "float8") == float8


def test_float32_is_without_tensor_cores() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") == 67e12


def test_a_row_ends_a_document() -> None:
    documents = np.array([[7, 7, 8, 8], [8, 8, 8, 9], [9, 9, 9, 9]])
    assert document_lengths(documents).tolist() == [2, 2, 3, 1, 4]


def test_many_documents_count_as_each_alone() -> None:
    config = small_config(
        sliding_window=6, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    )
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    alone = sum(int(n) * config.flops_per_token(int(n)) for n in lengths) / int(lengths.sum())
    assert packed_flops_per_token(config, lengths) == pytest.approx(alone, rel=1e-12)
