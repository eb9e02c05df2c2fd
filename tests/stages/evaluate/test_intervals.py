"""Intervals against published values and against their promise to cover the truth."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluate.intervals import bootstrap_mean, bootstrap_ratio, wilson


def test_wilson_equals_published_values() -> None:
    # Newcombe (1998), table I: 81 of 263 and 15 of 148
    assert wilson(81, 263) == pytest.approx([0.3080, 0.2553, 0.3662], abs=1e-4)
    assert wilson(15, 148) == pytest.approx([0.1014, 0.0624, 0.1605], abs=1e-4)
    assert wilson(0, 20)[1] == 0.0 and wilson(20, 20)[2] == pytest.approx(1.0)
    assert wilson(0, 0) == [0.0, 0.0, 1.0]


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        value, low, high = bootstrap_mean(rng.exponential(size=60), seed=trial, draws=400)
        assert low <= value <= high
        inside += low <= 1.0 <= high
    assert inside > 175


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = np.arange(20.0)
    assert bootstrap_mean(values, 3) == bootstrap_mean(values, 3)
    assert bootstrap_mean(values, 3) != bootstrap_mean(values, 4)


def test_ratio_weights_by_the_denominator() -> None:
    value, low, high = bootstrap_ratio([10.0, 30.0], [10.0, 10.0], seed=0)
    assert (value, low, high) == (2.0, 1.0, 3.0)


def test_nothing_to_average_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], 0)
