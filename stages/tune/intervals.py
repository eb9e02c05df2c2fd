"""Confidence intervals of measured shares."""

from __future__ import annotations

import math


def accuracy_metrics(share: float, pairs: int) -> dict[str, float]:
    """What a stage records of the share of held-out pairs it ranks right."""
    low, high = wilson(share * pairs, pairs)
    return {
        "accuracy": share,
        "accuracy_low": low,
        "accuracy_high": high,
        "heldout_pairs": pairs,
    }


def wilson(successes: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; 95 % by default. (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
