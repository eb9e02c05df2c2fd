"""The losses of policy optimization, per token, and how tokens add up to one number."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["token", "sequence", "constant"]
KLEstimator = Literal["k1", "k3"]


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's loss (arXiv:1707.06347, eq. 7), elementwise: -min(r A, clip(r, 1 - low, 1 + high) A).

    r = exp(logprobs - old_logprobs). `clip_high` above `clip_low` leaves unlikely tokens more
    room to grow (DAPO, arXiv:2503.14476).
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """1/2 max((V - R)^2, (V_clipped - R)^2), elementwise, V kept within `clip` of the old value."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def kl_penalty(logprobs: Tensor, reference_logprobs: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimates of KL(policy || reference) from samples of the policy, elementwise.

    k1 = log p - log q: unbiased, may be negative. k3 = q/p - 1 - log(q/p): unbiased, never
    negative, of less variance (Schulman, "Approximating KL divergence", 2020).
    """
    difference = logprobs - reference_logprobs
    if estimator == "k1":
        return difference
    return torch.expm1(-difference) + difference


def token_weights(mask_bt: Tensor, kind: Aggregation, longest: int) -> Tensor:
    """What each token's loss is multiplied with before the sum, [b, t].

    "token": 1 / tokens of the batch (DAPO). "sequence": each row's mean, then the mean over rows
    (GRPO). "constant": 1 / (rows * longest), the same for every token whatever its row's length, so
    that long wrong answers are not favoured (Dr. GRPO).
    """
    mask_bt = mask_bt.float()
    rows = mask_bt.shape[0]
    if kind == "token":
        return mask_bt / mask_bt.sum().clamp(min=1)
    if kind == "sequence":
        return mask_bt / (mask_bt.sum(1, keepdim=True).clamp(min=1) * rows)
    return mask_bt / (rows * longest)
