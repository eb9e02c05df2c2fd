"""Attention in bfloat16 on a CPU, for training: two batched products with a softmax between.

torch's fused kernel has no fast backward pass in bfloat16 there: on a processor with AMX it takes
four times what the products take (256 tokens, heads of 32).
"""

from __future__ import annotations

import torch
from torch import Tensor


def prefers_products(queries_bhtd: Tensor) -> bool:
    """Whether these queries are better attended by `attend_by_products`."""
    return (
        queries_bhtd.dtype == torch.bfloat16
        and queries_bhtd.device.type == "cpu"
        and torch.is_grad_enabled()
    )


def attend_by_products(
    queries_bhtd: Tensor, keys_bksd: Tensor, values_bksd: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention's output [rows, heads, length, head_dim]; causal where there is no mask.

    `mask` is bool, True where a key is seen, [rows or 1, 1, length, keys]. A key-value head's
    queries are stacked, so that keys and values are never repeated.
    """
    rows, heads, length, width = queries_bhtd.shape
    kv_heads, keys = keys_bksd.shape[1:3]
    if mask is None:
        mask = torch.ones(length, keys, dtype=torch.bool).tril(keys - length)[None, None]
    bias = torch.zeros(mask.shape, dtype=queries_bhtd.dtype).masked_fill_(~mask, float("-inf"))
    stacked = (queries_bhtd * scale).reshape(rows * kv_heads, -1, width)
    scores = stacked @ keys_bksd.reshape(rows * kv_heads, keys, width).mT
    weights = (scores.view(rows, heads, length, keys) + bias).softmax(-1)
    values = values_bksd.reshape(rows * kv_heads, keys, -1)
    out = weights.view(rows * kv_heads, -1, keys) @ values
    return out.view(rows, heads, length, -1)
