"""Block-sparse attention for packed documents and windows: flex attention (arXiv:2412.05496).

It never looks at a tile of 128 queries by 128 keys in which nothing may be seen, so a packed batch
costs what its documents cost, and no mask of length x length is ever held. What is not packed needs
nothing from here: torch's fused attention is causal by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

SHAPES = 64
"""Graphs of one compiled function."""
Mask = Tensor | BlockMask
"""Bool, True where a query may look (broadcast over heads), or the same by tiles."""


def block_mask(
    length: int,
    device: torch.device,
    document_ids_bt: Tensor | None = None,
    window: int | None = None,
) -> BlockMask:
    """Causal attention, within documents and among the `window` newest tokens where given.

    A token sees itself and at most `window - 1` before it.
    """

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = key <= query
        if document_ids_bt is not None:
            allowed = allowed & (document_ids_bt[row, query] == document_ids_bt[row, key])
        if window is not None:
            allowed = allowed & (query - key < window)
        return allowed

    rows = None if document_ids_bt is None else len(document_ids_bt)
    # Uncompiled, it evaluates the rule at every pair into a tensor of rows x length x length.
    create = _compiled(create_block_mask) if device.type == "cuda" else create_block_mask
    return cast(BlockMask, create(seen, rows, None, length, length, device=str(device)))


def attend_blocks(
    queries_bhtd: Tensor,
    keys_bksd: Tensor,
    values_bksd: Tensor,
    mask: BlockMask,
    scale: float | None = None,
) -> Tensor:
    """Attention's output, [rows, heads, length, width of a value].

    Neighbouring heads share a key-value head where there are fewer of those; scores are multiplied
    by `scale`, 1 / sqrt(width) unless told.
    """
    kernel: Callable[..., Any] = flex_attention
    # The compiled kernel knows neither float64 nor heads narrower than a tensor core's tile;
    # uncompiled, flex attention is the plain formula. A compiled region compiles it by itself.
    plain = queries_bhtd.dtype == torch.float64 or queries_bhtd.shape[-1] < 16
    if queries_bhtd.is_cuda and not plain and not torch.compiler.is_compiling():
        kernel = _compiled(flex_attention)
    shared = queries_bhtd.shape[1] != keys_bksd.shape[1]
    out = kernel(
        queries_bhtd, keys_bksd, values_bksd, block_mask=mask, scale=scale, enable_gqa=shared
    )
    return cast(Tensor, out)


def allow_shapes() -> None:
    """Let the compiler keep a graph for each shape a model meets (rows of a micro-batch, of an
    evaluation, windows); past its own limit of 8 it would run the rest uncompiled.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, SHAPES)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    allow_shapes()
    return torch.compile(function, dynamic=False)
