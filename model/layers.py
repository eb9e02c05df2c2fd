"""The decoder's small parts: RMSNorm and SwiGLU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (arXiv:1910.07467); statistics in float32.

    Under autocast the result is of its type: every reader is a matrix product, and would cast it.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # A compiler fuses the formula and its gradient with what stands around them.
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            inverse = (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
            return (wide * inverse * self.weight).to(product_dtype(x))
        if torch.is_grad_enabled():
            return _RMSNormalize.apply(x, self.weight, self.eps)
        return _normalize(x, self.weight, self.eps)[0]


def product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products of x are taken in: autocast's type, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _normalize(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x normalised and scaled, ready for a product, and 1 / rms(x) of each vector."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).mul_(weight).to(product_dtype(x)), inverse


class _RMSNormalize(torch.autograd.Function):
    """(x, weight, eps) -> x / sqrt(mean(x^2) + eps) * weight.

    On CPUs torch takes twice the passes over memory, and twice the time, for it and its gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, inverse = _normalize(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        wide, grad = x.to(inverse.dtype), upstream.to(inverse.dtype)
        product = (grad * wide).flatten(0, -2)
        grad_weight = product.T @ inverse.flatten()
        along = (product @ weight.to(inverse.dtype)).view_as(inverse)
        along = along * inverse.square() / x.shape[-1]
        grad_x = (grad * weight).addcmul_(wide, along, value=-1).mul_(inverse)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), arXiv:2002.05202."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_btd)) * self.up_proj(x_btd))
