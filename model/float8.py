"""Linear layers whose three matrix products run in 8-bit floats, for GPUs that have them.

Dynamic scaling by tensor (arXiv:2209.05433): each operand is scaled by its own largest absolute
value, at every step, to fill the format's range: e4m3 for activations and weights, e5m2 for
gradients, which need range more than digits. Weights, their gradients and everything between the
products keep their own precision. Pays for large matrices on Hopper and newer, under
`torch.compile`, which fuses scaling with the operation before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.layers import product_dtype

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2


class Float8Linear(nn.Linear):
    """nn.Linear, computed in float8; the same parameters under the same names."""

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast the weights are wider than what the product takes and returns.
        half = x.to(product_dtype(x))
        out = _Float8Product.apply(half.flatten(0, -2), self.weight.to(half.dtype))
        return out.view(*x.shape[:-1], self.out_features)


def use_float8(module: nn.Module) -> int:
    """Let every bias-free nn.Linear inside compute in float8, in place; returns how many do.

    Leave the head out (call it on the layers): its logits want the digits. A width that is no
    multiple of 16, which the tensor cores ask for, is a ValueError.
    """
    converted = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child.bias is not None:
                continue
            if child.in_features % 16 or child.out_features % 16:
                raise ValueError(
                    f"{name} is {child.out_features} x {child.in_features}; float8 expects both "
                    "to be multiples of 16: choose other widths, or train in bfloat16"
                )
            with torch.device("meta"):
                replacement = Float8Linear(child.in_features, child.out_features, bias=False)
            replacement.weight = child.weight
            replacement.train(child.training)
            setattr(parent, name, replacement)
            converted += 1
    return converted


class _Float8Product(torch.autograd.Function):
    """(x [n, k], weight [m, k]) -> x @ weight.T [n, m] and its two gradients.

    The hardware multiplies a row-major matrix by a column-major one: hence the transposed copies.
    """

    @staticmethod
    def forward(ctx: Any, x_nk: Tensor, weight_mk: Tensor) -> Tensor:
        ctx.save_for_backward(x_nk, weight_mk)
        x, x_scale = _quantize(x_nk, FORWARD)
        weight, weight_scale = _quantize(weight_mk, FORWARD)
        return torch._scaled_mm(
            x, weight.t(), scale_a=x_scale, scale_b=weight_scale,
            out_dtype=x_nk.dtype, use_fast_accum=True,
        )  # fmt: skip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_nm: Tensor) -> tuple[Tensor, Tensor]:
        x_nk, weight_mk = ctx.saved_tensors
        grad, grad_scale = _quantize(upstream_nm, BACKWARD)
        x, x_scale = _quantize(x_nk, FORWARD)
        weight, weight_scale = _quantize(weight_mk, FORWARD)
        grad_x = torch._scaled_mm(
            grad, weight.t().contiguous().t(), scale_a=grad_scale, scale_b=weight_scale,
            out_dtype=x_nk.dtype,
        )  # fmt: skip
        grad_weight = torch._scaled_mm(
            grad.t().contiguous(), x.t().contiguous().t(), scale_a=grad_scale, scale_b=x_scale,
            out_dtype=weight_mk.dtype,
        )  # fmt: skip
        return grad_x, grad_weight


def _quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x scaled into the format, what to multiply it by to get x back: float32, a scalar)."""
    largest = torch.finfo(dtype).max
    # A tensor of zeros keeps scale 1e-12 / largest: finite, and zero stays zero.
    scale = x.abs().amax().float().clamp(min=1e-12) / largest
    return (x.float() / scale).clamp(-largest, largest).to(dtype), scale
