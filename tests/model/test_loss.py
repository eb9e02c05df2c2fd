from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model import loss as loss_module
from model.loss import cross_entropy, token_logprobs


def case(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 7, 12, dtype=dtype, requires_grad=True)
    weight = torch.randn(40, 12, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 40, (3, 7))
    labels[0, 3:] = -100
    labels[2, 0] = -100
    return hidden, weight, labels


@pytest.mark.parametrize("chunk_tokens", [1, 5, 16, 1000])
def test_loss_and_gradients_are_torchs_in_float64(chunk_tokens: int) -> None:
    hidden, weight, labels = case(torch.float64)
    loss, count = cross_entropy(hidden, weight, labels, chunk_tokens)
    expected = F.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=-100
    )
    torch.testing.assert_close(loss, expected)
    assert int(count) == 16
    found = torch.autograd.grad(loss * 0.3, (hidden, weight))
    torch.testing.assert_close(found, torch.autograd.grad(expected * 0.3, (hidden, weight)))


def test_float32_is_near_float64() -> None:
    hidden, weight, labels = case(torch.float32)
    loss, _ = cross_entropy(hidden, weight, labels, 4)
    exact, _ = cross_entropy(hidden.double(), weight.double(), labels, 4)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)


def test_bfloat16_is_summed_in_float32() -> None:
    hidden, weight, labels = case(torch.bfloat16)
    loss, _ = cross_entropy(hidden, weight, labels, 4)
    assert loss.dtype == torch.float32
    exact, _ = cross_entropy(hidden.double(), weight.double(), labels, 4)
    torch.testing.assert_close(loss.double(), exact, rtol=0.02, atol=0)
    loss.backward()
    assert hidden.grad is not None and hidden.grad.dtype == torch.bfloat16


def test_a_small_factor_keeps_its_size_in_bfloat16() -> None:
    """The mean over a million tokens: rounded to 16 bits, 1e-6 would be .17 % too small."""
    hidden, weight, labels = case(torch.bfloat16)
    loss, _ = cross_entropy(hidden, weight, labels)
    plain = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    scaled = torch.autograd.grad(loss / 1_000_003, (hidden, weight))
    for whole, part in zip(plain, scaled, strict=True):
        share = float(part.double().norm() / whole.double().norm())
        assert share == pytest.approx(1 / 1_000_003, rel=5e-4)


def test_nothing_to_predict_is_zero_loss() -> None:
    hidden, weight, _ = case(torch.float32)
    loss, count = cross_entropy(hidden, weight, torch.full((3, 7), -100))
    loss.backward()
    assert loss.item() == 0 and int(count) == 0
    assert weight.grad is not None and float(weight.grad.abs().max()) == 0


def test_what_a_gpu_is_given_whole_is_what_is_picked_out_here() -> None:
    """A GPU is not asked which labels are ignored: they count nothing, and move nothing."""
    hidden, weight, labels = case(torch.float64)
    logits, flat = (hidden @ weight.T).flatten(0, 1), labels.flatten()[:, None]
    expected = F.cross_entropy(logits, flat[:, 0], reduction="sum", ignore_index=-100)
    (gradient,) = torch.autograd.grad(expected, logits, retain_graph=True)
    spoilt = logits.detach().masked_fill(flat == -100, torch.inf)  # whatever stands there
    nll, grad = loss_module._to_be_fused(spoilt, flat)
    torch.testing.assert_close((nll, grad), (expected.detach(), gradient))
    torch.testing.assert_close(loss_module._nll(spoilt, flat), expected.detach())


def test_a_very_unlikely_label_has_a_finite_loss() -> None:
    hidden = torch.tensor([[[300.0]]], requires_grad=True)
    loss, _ = cross_entropy(hidden, torch.tensor([[1.0], [0.0]]), torch.tensor([[1]]))
    assert loss.item() == pytest.approx(300)


def test_evaluation_computes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, labels = case(torch.float64)
    with monkeypatch.context() as without, torch.no_grad():
        without.delattr(loss_module, "_nll_and_gradient")
        loss, _ = cross_entropy(hidden, weight, labels, 5)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, cross_entropy(hidden, weight, labels, 50)[0].detach())


@pytest.mark.parametrize("chunk_tokens", [3, 100])
def test_token_logprobs_and_gradients_are_torchs(chunk_tokens: int) -> None:
    hidden_btd, weight, _ = case(torch.float64)
    hidden = hidden_btd.flatten(0, 1)
    labels = torch.randint(0, 40, (21,))
    found = token_logprobs(hidden, weight, labels, chunk_tokens)
    expected = torch.log_softmax(hidden @ weight.T, -1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(21, dtype=torch.float64)
    gradients = torch.autograd.grad(found, (hidden_btd, weight), upstream)
    reference = torch.autograd.grad(expected, (hidden_btd, weight), upstream)
    torch.testing.assert_close(gradients, reference)
