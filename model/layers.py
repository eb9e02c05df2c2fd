"""The decoder's small parts: RMSNorm, rotary position embedding, SwiGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig

Rotary = tuple[Tensor, Tensor]
"""cos and signed sin, float32, [1 or rows, 1, length, head_dim], Hugging Face's half rotation."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (arXiv:1910.07467); statistics in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotary_tables(positions_rt: Tensor, head_dim: int, theta: float) -> Rotary:
    """The rotation of each position (arXiv:2104.09864), [rows, 1, length, head_dim].

    The sine's first half carries the minus of Hugging Face's `rotate_half`, so that turning a
    vector is two products and one roll. Computed on the fly: half precision never rounds it.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_rt.device)
    angles = positions_rt[:, None, :, None].float() * theta ** -(exponents / head_dim)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x_bhtd: Tensor, rotary: Rotary) -> Tensor:
    """Turn each head's pairs (i, i + head_dim / 2) by its position's angles."""
    cos, sin = rotary
    half = x_bhtd.shape[-1] // 2
    return (x_bhtd * cos + x_bhtd.roll(half, -1) * sin).to(x_bhtd.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), arXiv:2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_btd)) * self.up_proj(x_btd))
