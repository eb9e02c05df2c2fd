"""Rotary position embedding: its tables, stretched for long contexts or not, and the rotation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.config import ModelConfig, RopeScaling

Rotary = tuple[Tensor, Tensor]
"""cos and signed sin, float32, [1 or rows, 1, length, width], Hugging Face's half rotation."""


def rotary_tables(positions_rt: Tensor, config: ModelConfig) -> Rotary:
    """The rotation of each position (arXiv:2104.09864), [rows, 1, length, config.rotary_width].

    The sine's first half carries the minus of Hugging Face's `rotate_half`, so that turning a
    vector is two products and one roll. Computed on the fly: half precision never rounds it.
    """
    frequencies, size = _frequencies(positions_rt, config)
    angles = positions_rt[:, None, :, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    if size != 1.0:
        cos, sin = cos * size, sin * size
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def _frequencies(positions_rt: Tensor, config: ModelConfig) -> tuple[Tensor, float]:
    """Radians per position of each pair, [width / 2] or [rows, 1, 1, width / 2]; the tables' size.

    The formulas are transformers' (modeling_rope_utils.py), in its float32.
    """
    width, theta, scaling = config.rotary_width, config.rope_theta, config.rope_scaling
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions_rt.device) / width
    if scaling is None:
        return theta**-exponents, 1.0
    if scaling.rope_type == "ntk":
        return config.ntk_theta**-exponents, 1.0
    if scaling.rope_type == "dynamic":
        trained = config.max_position_embeddings
        lengths_r = (positions_rt.amax(-1) + 1).clamp_min(trained)[:, None, None, None]
        stretch = scaling.factor * lengths_r / trained - (scaling.factor - 1)
        return (theta * stretch ** (width / (width - 2))) ** -exponents, 1.0
    plain = theta**-exponents
    if scaling.rope_type == "linear":
        return plain / scaling.factor, 1.0
    if scaling.rope_type == "llama3":
        return _llama3(plain, scaling), 1.0
    return _yarn(plain, width, theta, scaling), scaling.table_size


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1's: long waves are stretched, short ones kept, those between interpolated."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.trained_length * plain / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (share + (1 - share) / scaling.factor)


def _yarn(plain: Tensor, width: int, theta: float, scaling: RopeScaling) -> Tensor:
    """YaRN (arXiv:2309.00071), equations 17 to 23: what turns often is kept, the rest stretched."""

    def pair(turns: float) -> float:
        """Which pair turns so many times over the trained length."""
        return (
            width * math.log(scaling.trained_length / (turns * 2 * math.pi)) / (2 * math.log(theta))
        )

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    steps = torch.arange(width // 2, dtype=torch.float32, device=plain.device)
    stretched = ((steps - low) / ((high - low) or 0.001)).clamp(0, 1)
    return plain / scaling.factor * stretched + plain * (1 - stretched)


def rotate(x_bhtd: Tensor, rotary: Rotary) -> Tensor:
    """Turn each head's pairs (i, i + width / 2) by its position's angles."""
    return _Rotate.apply(x_bhtd, *rotary) if torch.is_grad_enabled() else _turn(x_bhtd, *rotary)


def halves(x: Tensor) -> Tensor:
    """DeepSeek's interleaved pairs (2i, 2i + 1), laid out as the pairs that `rotate` turns."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int = 1) -> Tensor:
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin, value=sign).to(x.dtype)


class _Rotate(torch.autograd.Function):
    """A rotation; its gradient is the rotation back, and nothing need be kept but the tables."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(upstream, cos, sin, sign=-1), None, None
