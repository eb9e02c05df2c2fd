from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.acceleration import accelerate
from model.float8 import Float8Linear, use_float8
from model.loss import cross_entropy
from tests.model.conftest import lively, small_config


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((found.double() - exact).norm() / exact.norm()).detach())


def test_product_and_gradients_are_within_the_formats_rounding() -> None:
    """e4m3 keeps 3 binary digits and e5m2 2: relative errors of a sum stay near 2^-4 and 2^-3."""
    torch.manual_seed(0)
    linear = Float8Linear(64, 48, bias=False)
    x = (torch.randn(2, 32, 64) * 7).bfloat16().requires_grad_()
    out = linear.bfloat16()(x)
    upstream = torch.randn(2, 32, 48).bfloat16() * 1e-3
    out.backward(upstream)
    wide = x.detach().double().requires_grad_()
    weight = linear.weight.detach().double().requires_grad_()
    exact = F.linear(wide, weight)
    exact.backward(upstream.double())
    assert out.shape == (2, 32, 48) and out.dtype == torch.bfloat16
    assert 0 < relative(out, exact) < 0.06
    assert x.grad is not None and wide.grad is not None
    assert linear.weight.grad is not None and weight.grad is not None
    assert 0 < relative(x.grad, wide.grad) < 0.1
    assert 0 < relative(linear.weight.grad, weight.grad) < 0.1


def test_scales_span_any_magnitude_and_zero() -> None:
    linear = Float8Linear(16, 16, bias=False)
    nn.init.eye_(linear.weight)
    for size in (1e-20, 1.0, 1e20):
        x = torch.full((16, 16), size).bfloat16()
        torch.testing.assert_close(linear.bfloat16()(x), x)
    assert float(linear(torch.zeros(16, 16).bfloat16()).abs().max()) == 0


def test_a_decoder_in_float8_is_close_and_keeps_its_names() -> None:
    config = small_config()
    plain, float8 = lively(config, std=0.1).bfloat16(), lively(config, std=0.1).bfloat16()
    names = list(float8.state_dict())
    accelerate(float8, compiled=False, float8=True)
    assert list(float8.state_dict()) == names
    assert sum(isinstance(m, Float8Linear) for m in float8.modules()) == 7 * 3
    assert not isinstance(float8.lm_head, Float8Linear)
    ids = torch.randint(0, 160, (2, 17), generator=torch.Generator().manual_seed(1))
    losses = [
        cross_entropy(m.hidden(ids[:, :-1]), m.lm_head.weight, ids[:, 1:])[0] / 32
        for m in (plain, float8)
    ]
    torch.testing.assert_close(losses[1], losses[0], rtol=0.03, atol=0)
    losses[1].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in float8.parameters())


def test_autocast_takes_wide_weights() -> None:
    linear = Float8Linear(32, 16, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(torch.randn(16, 32))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert linear.weight.grad is not None and linear.weight.grad.dtype == torch.float32


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 is 24 x 40; float8 expects .* multiples of 16"):
        use_float8(nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(40, 24, bias=False)))
