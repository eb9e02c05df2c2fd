"""The weights that a decoder begins with, each a function of a seed and its name.

Any rows of any parameter can be made alone: a rank that holds a part of a model makes only that
part, and every parallel shape begins with the same weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import ModelConfig

STD = 0.02
"""Of the normal distribution that matrices and embeddings are drawn from (GPT-2's)."""
RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight", "experts.down_proj")
BLOCK_NUMBERS = 1 << 22
"""Consecutive numbers of a parameter that one generator draws."""


def draw_seed() -> int:
    """A seed from torch's global generator, so `torch.manual_seed` decides a model's weights."""
    return int(torch.randint(2**63 - 1, (), device="cpu"))


def initial_rows(
    name: str, shape: Sequence[int], config: ModelConfig, seed: int, first: int, last: int
) -> Tensor:
    """Rows [first, last) of a parameter or persistent buffer of `shape`; float32, on the CPU.

    Norms are ones, the routers' correction zeros, all else is normal. What writes into the residual
    stream starts smaller, by the root of its number of writers (GPT-2's report, section 2.3).
    """
    size = (last - first, *shape[1:])
    if name.endswith("e_score_correction_bias"):
        return torch.zeros(size)
    if len(shape) == 1:
        return torch.ones(size)
    writers = 2 * config.num_hidden_layers if name.endswith(RESIDUAL_WRITERS) else 1
    width = math.prod(shape[1:])
    return _drawn(
        f"{seed}/{name}", first * width, last * width, shape[0] * width, STD / writers**0.5
    ).view(size)


def _drawn(key: str, start: int, stop: int, total: int, std: float) -> Tensor:
    """Numbers [start, stop) of the `total` that `key` stands for."""
    blocks = []
    for block in range(start // BLOCK_NUMBERS, -(-stop // BLOCK_NUMBERS)):
        begin = block * BLOCK_NUMBERS
        digest = hashlib.blake2b(f"{key}/{block}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        numbers = torch.empty(min(BLOCK_NUMBERS, total - begin)).normal_(
            std=std, generator=generator
        )
        blocks.append(numbers[max(start - begin, 0) : stop - begin])
    return torch.cat(blocks) if len(blocks) != 1 else blocks[0]
