from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.attention import document_mask
from model.kernels import attend_blocks, block_mask

DOCUMENTS = torch.tensor([[0] * 70 + [1] * 130 + [2] + [3] * 99, [5] * 290 + [2] * 10])


@pytest.mark.parametrize("window", [None, 1, 33])
def test_blocks_attend_as_the_dense_mask_does(window: int | None) -> None:
    """Three tiles a row, the last one short; queries share key-value heads.

    Forward only: torch has no backward of flex attention on a CPU; test_gpu.py has it.
    """
    torch.manual_seed(0)
    length = DOCUMENTS.shape[1]
    inputs = [torch.randn(2, heads, length, 16, dtype=torch.float64) for heads in (4, 2, 2)]
    dense = document_mask(DOCUMENTS)
    assert isinstance(dense, torch.Tensor)
    if window is not None:
        position = torch.arange(length)
        dense = dense & (position[:, None] - position < window)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=dense, enable_gqa=True)
    mask = block_mask(length, DOCUMENTS.device, DOCUMENTS, window)
    torch.testing.assert_close(attend_blocks(*inputs, mask), expected)


def test_tiles_in_which_nothing_is_seen_are_skipped() -> None:
    """Documents that begin at tiles' borders leave only the diagonal; windows, a band."""
    cpu = torch.device("cpu")
    documents = torch.arange(4).repeat_interleave(128)[None]
    assert block_mask(512, cpu, documents).sparsity() == pytest.approx(75)
    assert block_mask(512, cpu).sparsity() == pytest.approx(100 * 6 / 16)
    assert block_mask(512, cpu, window=2).sparsity() == pytest.approx(100 * 9 / 16)
