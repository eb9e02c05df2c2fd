"""Intervals: bootstrap over problems or prompts, and Wilson's for plain proportions.

Every figure of a report is one draw of what another evaluation set would have shown; the unit that
is redrawn is the problem (or the prompt), never its samples, which are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.tune.intervals import wilson as score_bounds

Interval = list[float]
"""[value, low, high], the 95 % interval around the value."""

Z95 = 1.959963984540054
FloatArray = NDArray[np.float64]


def bootstrap_mean(values: Sequence[float] | FloatArray, seed: int, draws: int = 2000) -> Interval:
    """Mean of `values` with the percentile bootstrap's 95 % interval (Efron 1979)."""
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("an interval needs at least one value; found none")
    rows = np.random.default_rng(seed).integers(0, data.size, size=(draws, data.size))
    low, high = np.percentile(data[rows].mean(axis=1), [2.5, 97.5])
    return [float(data.mean()), float(low), float(high)]


def bootstrap_ratio(
    numerators: Sequence[float] | FloatArray,
    denominators: Sequence[float] | FloatArray,
    seed: int,
    draws: int = 1000,
) -> Interval:
    """sum(numerators) / sum(denominators), units redrawn together: bits per byte over documents."""
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.size == 0 or top.size != bottom.size:
        raise ValueError(f"a ratio needs as many of both; found {top.size} and {bottom.size}")
    rows = np.random.default_rng(seed).integers(0, top.size, size=(draws, top.size))
    low, high = np.percentile(top[rows].sum(axis=1) / bottom[rows].sum(axis=1), [2.5, 97.5])
    return [float(top.sum() / bottom.sum()), float(low), float(high)]


def wilson(successes: float, trials: int) -> Interval:
    """A proportion with Wilson's score interval (Wilson 1927); [0, 0, 1] without trials."""
    share = successes / trials if trials else 0.0
    return [share, *score_bounds(successes, trials, Z95)]
