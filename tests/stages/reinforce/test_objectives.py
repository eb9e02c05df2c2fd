"""Losses against their formulas in float64, and gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stages.reinforce.objectives import (
    clipped_surrogate,
    clipped_value_loss,
    kl_penalty,
    token_weights,
)


def test_surrogate_is_the_formula() -> None:
    random = np.random.default_rng(0)
    new, old, advantage = random.normal(size=(3, 500))
    ratio = np.exp(new - old)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.28) * advantage)
    found = clipped_surrogate(
        *(torch.tensor(x) for x in (new, old, advantage)), clip_low=0.2, clip_high=0.28
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.0, 1.0, True), (1.0, -1.0, True), (1.5, 1.0, False), (1.5, -1.0, True),
     (0.5, -1.0, False), (0.5, 1.0, True)],
)  # fmt: skip
def test_clipping_stops_the_gradient_only_where_it_went_far_enough(
    ratio: float, advantage: float, moves: bool
) -> None:
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = clipped_surrogate(
        new, torch.zeros(1), torch.tensor([advantage]), clip_low=0.2, clip_high=0.2
    )
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert gradient.item() == pytest.approx(-ratio * advantage if moves else 0.0)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    """At ratio 1: -A d log p, for a softmax policy -A (onehot - p)."""
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 1, 2, 3, 4, 0])
    advantages = torch.randn(6, dtype=torch.float64)
    logprobs = torch.log_softmax(logits, -1)[torch.arange(6), actions]
    loss = clipped_surrogate(
        logprobs, logprobs.detach(), advantages, clip_low=0.2, clip_high=0.2
    ).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    onehot = torch.eye(5, dtype=torch.float64)[actions]
    torch.testing.assert_close(
        gradient, -advantages[:, None] * (onehot - torch.softmax(logits.detach(), -1))
    )


def test_value_loss_is_the_formula() -> None:
    random = np.random.default_rng(1)
    value, old, target = random.normal(size=(3, 500))
    clipped = old + np.clip(value - old, -0.2, 0.2)
    expected = 0.5 * np.maximum((value - target) ** 2, (clipped - target) ** 2)
    found = clipped_value_loss(*(torch.tensor(x) for x in (value, old, target)), 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimators_are_unbiased(estimator: str) -> None:
    """Summed over all outcomes with the policy's weights, both are the exact divergence."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    q = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    exact = float((p * (p / q).log()).sum())
    estimates = kl_penalty(p.log(), q.log(), estimator)  # type: ignore[arg-type]
    assert float((p * estimates).sum()) == pytest.approx(exact, rel=1e-12)
    if estimator == "k3":
        assert bool((estimates >= 0).all())


@pytest.mark.parametrize("loss", ["surrogate", "value", "k1", "k3"])
def test_gradients_by_finite_differences(loss: str) -> None:
    torch.manual_seed(4)
    first, second, third = (torch.randn(8, dtype=torch.float64) for _ in range(3))
    first.requires_grad_()
    functions = {
        "surrogate": lambda x: clipped_surrogate(x, second, third, clip_low=0.2, clip_high=0.3),
        "value": lambda x: clipped_value_loss(x, second, third, 0.2),
        "k1": lambda x: kl_penalty(x, second, "k1"),
        "k3": lambda x: kl_penalty(x, second, "k3"),
    }
    assert torch.autograd.gradcheck(functions[loss], (first,))


def test_token_weights() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(token_weights(mask, "token", 8), mask.float() / 5)
    torch.testing.assert_close(
        token_weights(mask, "sequence", 8), torch.tensor([[0.125] * 4, [0.5, 0, 0, 0]])
    )
    torch.testing.assert_close(token_weights(mask, "constant", 8), mask.float() / 16)
    assert not token_weights(torch.zeros(1, 4), "sequence", 8).isnan().any()
