"""pass@k against the binomial formula in exact arithmetic, and against simulation."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from stages.evaluate.pass_at_k import curve, curves_by_task, difference, pass_at_k


@pytest.mark.parametrize("samples", [1, 5, 32, 200])
def test_equals_the_binomial_formula(samples: int) -> None:
    for correct in range(samples + 1):
        for k in (1, 2, 7, samples):
            if k <= samples:
                exact = 1 - Fraction(comb(samples - correct, k), comb(samples, k))
                assert pass_at_k(samples, correct, k) == pytest.approx(float(exact), abs=1e-12)


def test_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    chance, samples, k = 0.15, 16, 4
    right = rng.binomial(samples, chance, size=20_000)
    mean = np.mean([pass_at_k(samples, int(c), k) for c in right])
    assert mean == pytest.approx(1 - (1 - chance) ** k, abs=0.01)


def test_more_k_than_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(4, 1, 8)


def test_curve_rises_and_lies_inside_its_interval() -> None:
    rng = np.random.default_rng(1)
    counts = [(32, int(rng.binomial(32, p))) for p in rng.beta(0.5, 2, size=80)]
    points = curve(counts, seed=5)
    assert list(points) == ["1", "2", "4", "8", "16", "32"]
    values = [point[0] for point in points.values()]
    assert values == sorted(values)
    assert all(low <= value <= high for value, low, high in points.values())
    assert points["1"][0] == pytest.approx(np.mean([c / n for n, c in counts]))


def test_few_samples_give_a_short_curve() -> None:
    assert list(curve([(4, 1), (4, 4)], seed=0)) == ["1", "2", "4"]
    assert curves_by_task({"b": [(2, 1)], "a": [(1, 1)]}, 0)["a"]["1"][0] == 1.0


def test_difference_is_paired() -> None:
    before = {"p1": 0.1, "p2": 0.9, "only before": 0.0}
    after = {"p1": 0.4, "p2": 1.2, "only after": 1.0}
    assert difference(after, before, 0) == pytest.approx([0.3, 0.3, 0.3])
