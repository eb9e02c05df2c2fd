"""Wilson's interval against its defining equation, solved by bisection in plain floats."""

from __future__ import annotations

import pytest

from stages.tune.intervals import wilson


def _bound(share: float, n: int, low: float, high: float) -> float:
    """Where |share - p| = z·sqrt(p(1-p)/n), between low and high."""

    def outside(p: float) -> bool:
        return abs(share - p) > 1.96 * (p * (1 - p) / n) ** 0.5

    inner, outer = low, high
    for _ in range(200):
        middle = (inner + outer) / 2
        inner, outer = (inner, middle) if outside(middle) else (middle, outer)
    return inner


@pytest.mark.parametrize(("k", "n"), [(1, 10), (50, 100), (97, 100), (200, 256)])
def test_wilson_solves_the_score_equation(k: int, n: int) -> None:
    low, high = wilson(k, n)
    assert low == pytest.approx(_bound(k / n, n, k / n, 0.0), abs=1e-9)
    assert high == pytest.approx(_bound(k / n, n, k / n, 1.0), abs=1e-9)


def test_no_trials_say_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
