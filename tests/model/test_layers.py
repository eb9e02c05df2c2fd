from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from model.layers import RMSNorm
from model.rotary import rotary_tables, rotate
from tests.model.conftest import small_config


def test_norm_and_its_gradient_are_torchs() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-6).double()
    norm.weight.data.uniform_(0.5, 2)
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-6))
    assert torch.autograd.gradcheck(norm, (x,))
    found = torch.autograd.grad(norm(x).sin().sum(), norm.weight)
    reference = F.rms_norm(x, (8,), norm.weight, 1e-6).sin().sum()
    torch.testing.assert_close(found, torch.autograd.grad(reference, norm.weight))
    with torch.no_grad():
        torch.testing.assert_close(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-6))


def test_norm_keeps_half_precision_and_sums_in_float32() -> None:
    norm = RMSNorm(4096, 1e-6)
    x = torch.full((1, 4096), 300.0, dtype=torch.bfloat16, requires_grad=True)
    out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), torch.ones(1, 4096))
    out.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


def test_rotation_is_hugging_faces() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8)
    positions = torch.tensor([[0, 1, 2, 3, 700]])
    angles = positions[..., None] / 1e4 ** (torch.arange(0, 8, 2) / 8)
    both = torch.cat((angles, angles), -1)
    expected, _ = apply_rotary_pos_emb(x, x, both.cos(), both.sin())
    tables = rotary_tables(positions, small_config(head_dim=8))
    torch.testing.assert_close(rotate(x, tables), expected)
    with torch.no_grad():
        torch.testing.assert_close(rotate(x, tables), expected)


def test_rotation_gradient_and_length() -> None:
    torch.manual_seed(0)
    tables = rotary_tables(torch.arange(5)[None], small_config(head_dim=8))
    cos, sin = tables[0].double(), tables[1].double()
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, (cos, sin)), (x,))
    torch.testing.assert_close(rotate(x, (cos, sin)).norm(dim=-1), x.norm(dim=-1))
