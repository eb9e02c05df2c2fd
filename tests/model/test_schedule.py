from __future__ import annotations

import math

import pytest

from model.schedule import learning_rate


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
def test_warmup_is_a_line_to_the_peak(kind: str) -> None:
    rates = [learning_rate(step, 100, 3e-3, 10, kind) for step in range(10)]  # type: ignore[arg-type]
    assert rates == pytest.approx([3e-3 * (step + 1) / 10 for step in range(10)])


def test_cosine_and_linear_by_formula() -> None:
    for step in range(10, 100):
        done = (step - 10) / 90
        cosine = learning_rate(step, 100, 2.0, 10, "cosine", floor=0.1)
        assert cosine == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))))
        assert learning_rate(step, 100, 2.0, 10, "linear") == pytest.approx(2 * (1 - done))


def test_wsd_holds_then_falls() -> None:
    rates = [learning_rate(step, 100, 1.0, 5, decay_fraction=0.2) for step in range(101)]
    assert all(rate == 1.0 for rate in rates[5:81])
    assert rates[81:] == pytest.approx([1 - (step - 80) / 20 for step in range(81, 101)])


def test_a_longer_wsd_run_shares_the_shorter_ones_course() -> None:
    shorter = [learning_rate(step, 100, 1.0, 5) for step in range(80)]
    assert shorter == [learning_rate(step, 1000, 1.0, 5) for step in range(80)]


def test_edges_and_mistakes() -> None:
    assert learning_rate(500, 100, 1.0, 0, "linear") == 0.0
    assert learning_rate(0, 1, 1.0, 0) == 1.0
    with pytest.raises(ValueError, match="'wds'; expected 'wsd', 'cosine' or 'linear'"):
        learning_rate(0, 10, 1.0, 0, "wds")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="warmup is 11 steps; expected 0 to 10"):
        learning_rate(0, 10, 1.0, 11)
