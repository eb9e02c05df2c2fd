"""How much better than expected each token (PPO) or each completion (group-relative) was."""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantages(
    rewards_bt: Tensor, values_bt: Tensor, mask_bt: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and returns, both [b, t] (Schulman 2015, arXiv:1506.02438).

    delta_t = r_t + gamma * V_{t+1} - V_t,  A_t = delta_t + gamma * lam * A_{t+1},  R_t = A_t + V_t,
    with V and A zero after a row's last masked token. `values_bt[:, t]` is the value of the state
    in which token t is chosen; `mask_bt` is 1 on completion tokens, which begin at column 0.
    """
    advantages_bt = torch.zeros_like(rewards_bt)
    following_a = torch.zeros_like(rewards_bt[:, 0])
    following_v = torch.zeros_like(rewards_bt[:, 0])
    for t in reversed(range(rewards_bt.shape[1])):
        inside = mask_bt[:, t]
        delta = rewards_bt[:, t] + gamma * following_v - values_bt[:, t]
        following_a = (delta + gamma * lam * following_a) * inside
        following_v = values_bt[:, t] * inside
        advantages_bt[:, t] = following_a
    return advantages_bt, (advantages_bt + values_bt) * mask_bt


def whiten(values_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the masked entries; 0 elsewhere."""
    count = mask_bt.sum().clamp(min=1)
    mean = (values_bt * mask_bt).sum() / count
    variance = ((values_bt - mean).square() * mask_bt).sum() / count
    return (values_bt - mean) * (variance + 1e-8).rsqrt() * mask_bt


def group_advantages(rewards_gs: Tensor, valid_gs: Tensor, *, normalize: bool) -> Tensor:
    """Each reward less its group's mean, [groups, samples]; 0 where not valid.

    With `normalize`, also over the group's standard deviation (GRPO, arXiv:2402.03300): easy and
    hard prompts then weigh as much as the others. Without (Dr. GRPO, arXiv:2503.20783) the
    gradient is an unbiased policy gradient up to the factor (n - 1) / n. A group whose valid
    rewards are all equal has no advantage either way.
    """
    valid = valid_gs.to(rewards_gs.dtype)
    count = valid.sum(1, keepdim=True).clamp(min=1)
    mean = (rewards_gs * valid).sum(1, keepdim=True) / count
    centered = (rewards_gs - mean) * valid
    if not normalize:
        return centered
    deviation = (centered.square().sum(1, keepdim=True) / count).sqrt()
    return torch.where(deviation > 1e-6, centered / (deviation + 1e-6), torch.zeros_like(centered))


def informative_groups(rewards_gs: Tensor, valid_gs: Tensor) -> Tensor:
    """Which groups, [g], have valid rewards that differ: only these carry a gradient."""
    low = rewards_gs.masked_fill(~valid_gs, float("inf")).amin(1)
    high = rewards_gs.masked_fill(~valid_gs, float("-inf")).amax(1)
    return high > low
