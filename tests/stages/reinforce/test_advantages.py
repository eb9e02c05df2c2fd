"""Advantages against plain float64 loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.reinforce.advantages import (
    generalized_advantages,
    group_advantages,
    informative_groups,
    whiten,
)


def reference_gae(
    rewards: list[float], values: list[float], gamma: float, lam: float
) -> list[float]:
    """A_t = sum_l (gamma lam)^l delta_{t+l}, summed as it is written (arXiv:1506.02438, eq. 16)."""
    count = len(rewards)
    following = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(count)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, count)) for t in range(count)
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_equals_its_definition(gamma: float, lam: float) -> None:
    random = np.random.default_rng(3)
    lengths = [7, 1, 4, 12]
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    rewards = torch.tensor(random.normal(size=(4, 12)), dtype=torch.float32) * mask
    values = torch.tensor(random.normal(size=(4, 12)), dtype=torch.float32)  # noise behind the end
    advantages, returns = generalized_advantages(
        rewards, values, mask.float(), gamma=gamma, lam=lam
    )
    for row, length in enumerate(lengths):
        expected = reference_gae(
            rewards[row, :length].double().tolist(), values[row, :length].double().tolist(),
            gamma, lam,
        )  # fmt: skip
        np.testing.assert_allclose(advantages[row, :length], expected, atol=1e-5)
        np.testing.assert_allclose(
            returns[row, :length], np.add(expected, values[row, :length].numpy()), atol=1e-5
        )
        assert not advantages[row, length:].any() and not returns[row, length:].any()


def test_gae_at_lambda_one_is_return_less_value() -> None:
    rewards = torch.tensor([[0.0, 0.0, 2.0]])
    values = torch.tensor([[0.5, 1.0, -1.0]])
    advantages, returns = generalized_advantages(
        rewards, values, torch.ones(1, 3), gamma=1.0, lam=1.0
    )
    torch.testing.assert_close(advantages, 2.0 - values)
    torch.testing.assert_close(returns, torch.full((1, 3), 2.0))


def test_whiten_uses_only_what_is_masked() -> None:
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 99.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    white = whiten(values, mask)
    kept = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        white[mask.bool()].numpy(), (kept - kept.mean()) / kept.std(), atol=1e-5
    )
    assert not white[~mask.bool()].any()


def test_group_advantages_with_and_without_deviation() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    valid = torch.ones(2, 4, dtype=torch.bool)
    centered = group_advantages(rewards, valid, normalize=False)
    torch.testing.assert_close(centered[0], torch.tensor([0.75, -0.25, -0.25, -0.25]))
    normalized = group_advantages(rewards, valid, normalize=True)
    torch.testing.assert_close(
        normalized[0], centered[0] / rewards[0].std(unbiased=False), atol=1e-4, rtol=1e-4
    )
    assert not centered[1].any() and not normalized[1].any()
    assert informative_groups(rewards, valid).tolist() == [True, False]


def test_samples_without_a_verdict_do_not_count() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    valid = torch.tensor([[True, True, False], [False, True, True]])
    advantages = group_advantages(rewards, valid, normalize=False)
    torch.testing.assert_close(advantages[0], torch.tensor([0.5, -0.5, 0.0]))
    assert not advantages[1].any()
    assert informative_groups(rewards, valid).tolist() == [True, False]
    assert informative_groups(rewards, torch.zeros_like(valid)).tolist() == [False, False]
