"""Guards: what is refused, that all that is ordinary passes, and which data follows a rollback."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stages.tune.guards import Guard, Guards, Skip, batch_number


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


def test_batches_move_past_what_is_skipped() -> None:
    skips: list[Skip] = []
    assert [batch_number(step, skips) for step in range(6)] == [0, 1, 2, 3, 4, 5]
    skips.append({"first": 2, "last": 4, "back_to": 2})
    assert [batch_number(step, skips) for step in range(6)] == [0, 1, 5, 6, 7, 8]
    skips.append({"first": 1, "last": 1, "back_to": 1})
    skips.append({"first": 7, "last": 9, "back_to": 4})
    used = [batch_number(step, skips) for step in range(6)]
    assert used == [0, 5, 6, 10, 11, 12]


def test_a_skip_that_holds_an_earlier_one_passes_over_its_batches_once() -> None:
    skips: list[Skip] = [
        {"first": 100, "last": 104, "back_to": 100}, {"first": 90, "last": 109, "back_to": 90}
    ]  # fmt: skip
    assert [batch_number(step, skips) for step in (89, 90, 91, 100)] == [89, 110, 111, 120]
    skips = [{"first": 10, "last": 20, "back_to": 10}, {"first": 15, "last": 30, "back_to": 9}]
    assert [batch_number(step, skips) for step in (9, 10, 11)] == [9, 31, 32]
