"""Attention by products equals torch's, forward and backward; it is taken for bfloat16 alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model import cpu_attention
from model.attention import document_mask
from model.cpu_attention import attend_by_products, prefers_products


@pytest.mark.parametrize("block", [3, 10, 128])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_attention(masked: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "BLOCK", block)
    torch.manual_seed(0)
    shapes = (3, 4, 10, 8), (3, 2, 10, 8), (3, 2, 10, 8)
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    documents = torch.tensor([[0] * 4 + [1] * 6, [0] * 10, [0] + [1] * 9])
    mask = document_mask(documents) if masked else None
    ours = attend_by_products(*leaves, mask, 8**-0.5)
    theirs = F.scaled_dot_product_attention(
        *leaves, attn_mask=mask, is_causal=not masked, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(theirs)
    for left, right in zip(
        torch.autograd.grad((ours * weight).sum(), leaves),
        torch.autograd.grad((theirs * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_it_sees_more_keys_than_there_are_queries() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 2, 3, 4).double(), torch.randn(1, 2, 7, 4).double()
    mask = torch.ones(3, 7, dtype=torch.bool).tril(4)[None, None]
    expected = F.scaled_dot_product_attention(queries, keys, keys, attn_mask=mask)
    torch.testing.assert_close(attend_by_products(queries, keys, keys, None, 0.5), expected)


def test_it_is_chosen_for_bfloat16_in_training() -> None:
    queries = torch.zeros(1, 1, 2, 4)
    assert prefers_products(queries.bfloat16()) and not prefers_products(queries)
    with torch.no_grad():
        assert not prefers_products(queries.bfloat16())
