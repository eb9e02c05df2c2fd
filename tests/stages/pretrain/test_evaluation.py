"""When a run has stopped learning, and numbers that a float cannot hold."""

from __future__ import annotations

import math

import pytest

from stages.pretrain import EarlyStop
from stages.pretrain.evaluation import Stopping, perplexity


@pytest.mark.parametrize("evaluate_every", [1, 2, 4])
def test_evaluations_between_the_rules_own_change_nothing(evaluate_every: int) -> None:
    stopping = Stopping(EarlyStop(every=4, patience=2))
    losses = {4: 3.0, 8: 2.0, 12: 2.5, 16: 2.1}
    ended = None
    for step in range(1, 17):
        if step % evaluate_every == 0:
            stopping.saw(step, losses.get(step, 9.0))
        if stopping.due and ended is None:
            ended = step
    assert ended == 16


def test_a_run_without_the_rule_never_stops() -> None:
    stopping = Stopping(None)
    for step in range(1, 9):
        stopping.saw(step, float(step))
    assert not stopping.due


def test_a_loss_that_is_not_finite_is_worse_than_any() -> None:
    stopping = Stopping(EarlyStop(every=1, patience=1))
    stopping.saw(1, 2.0)
    stopping.saw(2, math.nan)
    assert stopping.due


@pytest.mark.parametrize("loss", [2.0, math.nan, math.inf])
def test_a_plateau_is_no_better(loss: float) -> None:
    stopping = Stopping(EarlyStop(every=1, patience=3))
    ended = []
    for step in range(1, 5):
        stopping.saw(step, loss)
        ended.append(stopping.due)
    assert ended == [False, False, False, True]


@pytest.mark.parametrize(
    ("losses", "least", "ended"),
    [
        ([3.0, 2.5], 0.5, False),  # exactly as much as is asked for
        ([3.0, 2.75], 0.5, True),
        ([3.0, 2.75], 0.0, False),
        ([math.nan, 2.0], 0.5, False),  # it can be measured again
    ],
)
def test_what_counts_as_better(losses: list[float], least: float, ended: bool) -> None:
    stopping = Stopping(EarlyStop(every=1, patience=1, min_improvement=least))
    for step, loss in enumerate(losses, start=1):
        stopping.saw(step, loss)
    assert stopping.due == ended


def test_perplexity_is_the_exponential_as_far_as_it_goes() -> None:
    assert perplexity(2.0) == pytest.approx(7.38905609893065)
    assert perplexity(1e4) == math.inf
