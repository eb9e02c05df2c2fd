"""Guards: what is refused, that all that is ordinary passes, and which data follows a rollback."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from stages.tune.guards import Guard, Guards, Skip, passed_by


def _run(seed: int, steps: int, world: int) -> tuple[Guard, list[str]]:
    """A training as its numbers look: 32 rows shared among ranks, a falling loss with noise, rare
    sources that are much harder, norms skewed and with a tail, and a warm-up hump.
    """
    draw = np.random.default_rng(seed)
    guard, said = Guard(Guards(), world), []
    for step in range(steps):
        base = 2.5 + 8.0 * math.exp(-step / 300) + 0.4 * math.exp(-(((step - 150) / 60) ** 2))
        rows = base + draw.normal(0, 0.5, 32)
        rows += (draw.random(32) < 0.01) * draw.uniform(1.0, 4.0, 32)  # a hard source
        rank_losses = rows.reshape(world, -1).mean(axis=1)
        norm = (0.4 + 2 * math.exp(-step / 200)) * math.exp(draw.normal(0, 0.35))
        norm *= 3.0 if draw.random() < 0.005 else 1.0
        by_rank = dict(enumerate(rank_losses.tolist()))
        loss = float(rank_losses.mean())
        guard.judge(loss, by_rank)
        taken = guard.accepts(norm)
        if not taken:
            said.append(f"{step}: {guard.reason}")
        guard.count(loss, by_rank, norm, taken)
    return guard, said


@pytest.mark.parametrize(("seed", "world"), [(0, 1), (1, 2), (2, 8)])
def test_ten_thousand_ordinary_steps_raise_no_alarm(seed: int, world: int) -> None:
    assert _run(seed, 10_000, world)[1] == []


@pytest.mark.parametrize(
    ("losses", "norm", "why"),
    [
        ([2.5, math.nan], 0.4, "the loss of rank 1 is nan"),
        ([math.inf, 2.5], 0.4, "the loss of rank 0 is inf"),
        ([2.5, 9.0], 0.4, "the loss of rank 1 is 9"),
        ([4.5, 4.6], 0.4, "the loss is 4.55, usually 2.5"),
        ([2.5, 2.6], math.inf, "the gradient norm is inf"),
        ([2.5, 2.6], 40.0, "the gradient norm is 40"),
    ],
)
def test_what_one_rank_does_wrong_is_refused(losses: list[float], norm: float, why: str) -> None:
    guard, _ = _run(3, 2000, 2)
    guard.judge(sum(losses) / 2, dict(enumerate(losses)))
    assert not guard.accepts(norm)
    assert guard.reason is not None and why[:20] in guard.reason
    guard.judge(2.5, {0: 2.5, 1: 2.6})
    assert guard.accepts(0.4)


def test_a_refused_step_leaves_no_mark_and_several_send_the_run_back() -> None:
    guard, _ = _run(4, 500, 2)
    before = guard.state()
    for turn in range(5):
        assert not guard.must_go_back
        guard.judge(math.nan, {0: math.nan, 1: 2.0})
        guard.count(math.nan, {0: math.nan, 1: 2.0}, math.inf, taken=False)
        assert guard.refused == turn + 1
    assert guard.must_go_back
    assert guard.state() | {"refused": 0} == before


def test_a_resumed_guard_decides_as_the_undisturbed_one() -> None:
    guard, _ = _run(5, 700, 2)
    resumed = Guard(Guards(), 2, guard.state())
    for value in (2.6, 3.3, 3.6, 4.0, 5.0):
        for one in (guard, resumed):
            one.judge(value, {0: value, 1: value})
        assert guard.reason == resumed.reason
    assert len(Guard(Guards(), 4, guard.state()).rank_loss.values) == 0  # other extremes


def test_a_guard_forgets_where_other_data_begins() -> None:
    """A mixture of harder text is no spike, however long it lasts."""
    guard, _ = _run(5, 700, 2)
    settings = guard.settings
    harder = 2 * statistics.median(guard.loss.values)
    guard.judge(harder, {0: harder, 1: harder})
    assert guard.reason is not None
    guard.forget()
    for _ in range(settings.warmup):
        guard.judge(harder, {0: harder, 1: harder})
        assert guard.accepts(1.0)
        guard.count(harder, {0: harder, 1: harder}, 1.0, taken=True)
    guard.judge(4 * harder, {0: harder, 1: harder})
    assert guard.reason is not None and "usually" in guard.reason


def test_a_window_that_never_fills_the_warmup_is_refused() -> None:
    with pytest.raises(ValueError, match=r"guards.window is 16, less than guards.warmup 32"):
        Guards(window=16)


def test_a_step_has_behind_it_what_was_left_out_up_to_its_last_return() -> None:
    skips: list[Skip] = [
        {"first": 10, "last": 14}, {"first": 20, "last": 24}, {"first": 8, "last": 21}
    ]  # fmt: skip
    assert passed_by(9, []) == []
    assert passed_by(9, skips[:2]) == []
    assert passed_by(15, skips[:2]) == [(10, 15)]
    assert passed_by(20, skips[:2]) == [(10, 15), (20, 25)]
    assert passed_by(7, skips) == []
    assert passed_by(8, skips) == [(10, 15), (20, 25), (8, 22)], "it was further ahead before"
