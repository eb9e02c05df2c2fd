"""Attention in bfloat16 on a CPU, for training: products with a softmax between, block by block.

torch's fused kernel has no fast backward pass in bfloat16 there: on a processor with AMX it takes
four times what the products take (256 tokens, heads of 32). Queries go in blocks, and a block is
never multiplied by the keys behind its last query.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128
"""Queries that are multiplied by the same keys."""


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
    """Attention's output [rows, heads, length, width of a value]; causal where there is no mask.

    `mask` is bool, True where a key is seen, [rows or 1, 1, length, keys], and causal too. A
    key-value head's queries are stacked, so that keys and values are never repeated.
    """
    length, keys = queries_bhtd.shape[2], keys_bksd.shape[2]
    if mask is None:
        mask = torch.ones(length, keys, dtype=torch.bool).tril(keys - length)[None, None]
    return _Attend.apply(queries_bhtd, keys_bksd, values_bksd, mask, scale)


class _Attend(torch.autograd.Function):
    """(queries, keys, values, mask, scale) -> output, by blocks of queries.

    g stands for the key-value heads of all rows, q for a block's queries of the heads that share
    one, s for the keys up to the block's end.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        rows, heads, length, _ = queries.shape
        keys_gsd, values_gsd = keys.flatten(0, 1), values.flatten(0, 1)
        out = queries.new_empty(rows, length, heads, values.shape[-1]).transpose(1, 2)
        queries = queries * scale
        weights = []
        for part, seen in _blocks(length, keys.shape[2]):
            scores_gqs = _stacked(queries[:, :, part], keys) @ keys_gsd[:, :seen].mT
            bias = scores_gqs.new_zeros(()).where(mask[:, :, part, :seen], -torch.inf)
            scores_gqs.view(rows, heads, -1, seen).add_(bias)
            weights.append(scores_gqs.softmax(-1))
            part_gqd = weights[-1] @ values_gsd[:, :seen]
            out[:, :, part] = part_gqd.view(rows, heads, -1, out.shape[-1])
        ctx.save_for_backward(queries, keys, values, *weights)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, *weights = ctx.saved_tensors
        rows, heads, length, width = queries.shape
        keys_gsd, values_gsd = keys.flatten(0, 1), values.flatten(0, 1)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = (
            torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32))
            for x in (keys_gsd, values_gsd)
        )
        for (part, seen), weights_gqs in zip(_blocks(length, keys.shape[2]), weights, strict=True):
            grad_gqd = _stacked(upstream[:, :, part], values)
            grad_values[:, :seen] += weights_gqs.mT @ grad_gqd
            grad_gqs = torch.ops.aten._softmax_backward_data(
                grad_gqd @ values_gsd[:, :seen].mT, weights_gqs, -1, weights_gqs.dtype
            )
            grad_keys[:, :seen] += grad_gqs.mT @ _stacked(queries[:, :, part], keys)
            grad = (grad_gqs @ keys_gsd[:, :seen]).mul_(ctx.scale)
            grad_queries[:, :, part] = grad.view(rows, heads, -1, width)
        return (
            grad_queries, grad_keys.to(keys.dtype).view_as(keys),
            grad_values.to(values.dtype).view_as(values), None, None,
        )  # fmt: skip


def _blocks(length: int, keys: int) -> Iterator[tuple[slice, int]]:
    """(a block of queries, how many keys its last one sees); the last query sees all keys."""
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        yield slice(begin, end), keys - length + end


def _stacked(queries_bhqd: Tensor, keys_bksd: Tensor) -> Tensor:
    """The queries that share a key-value head, one behind the other, [rows * heads, q, d]."""
    return queries_bhqd.reshape(keys_bksd.shape[0] * keys_bksd.shape[1], -1, queries_bhqd.shape[-1])
