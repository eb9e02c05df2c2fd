"""What travels behind computing, stage by stage of ZeRO, as DeepSpeed orders it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stages.hardware import Hardware
from stages.planning import roofline
from stages.planning.buckets import last_share
from stages.planning.communication import Communication
from stages.planning.machine import Machine, planned_machine
from stages.planning.roofline import exposed_seconds
from stages.planning.run_shape import RunShape

Build = Callable[..., RunShape]
COMPUTING = 12.0


@pytest.fixture(autouse=True)
def many_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large model, whose last bucket is little of it; a test of that takes it back."""
    monkeypatch.setattr(roofline, "last_share", lambda run: 0.0)


def machine_of(run: RunShape) -> Machine:
    """One worker a node: all that they exchange crosses the network."""
    return planned_machine(Hardware(device="h100", per_node=1), run)


def waited(build: Build, gradients: float, weights: float, **parallel: Any) -> float:
    """Seconds exposed of gradients and weights that travel so long, in a step of 12 s with four
    micro-batches.
    """
    fields = {"workers": 4, "rows": 1, "gpu": True, **parallel}
    data = 4 // fields.get("pipeline", 1)
    run = build(batch_tokens=128 * 4 * data, parallel=fields)
    assert run.accumulation == 4
    network = machine_of(run).network
    sent = Communication(gradients * network, weights * network, 0, 0, 0, 0)
    return exposed_seconds(run, machine_of(run), sent, COMPUTING)[0]


@pytest.mark.parametrize(
    ("parallel", "gradients", "expected"),
    [
        ({"zero": 0}, 3, 3),  # reduced once all passes are over
        ({"zero": 0}, 100, 100),
        ({"zero": 1}, 3, 1),  # a quarter of 8 s of backward passes hides it
        ({"zero": 2}, 8, 0),
        ({"zero": 2}, 9, 1),
        ({"zero": 3}, 9, 1),
        ({"zero": 2, "activation_checkpointing": True}, 10, 1),  # 9 s: a forward pass is within
        ({"zero": 1, "activation_checkpointing": True}, 3, 0.75),
        ({"zero": 0, "pipeline": 2}, 3, 3),
        ({"zero": 1, "pipeline": 2}, 3, 3),
    ],
)
def test_gradients(
    run_shape: Build, parallel: dict[str, Any], gradients: float, expected: float
) -> None:
    assert waited(run_shape, gradients, 0, **parallel) == pytest.approx(expected)


@pytest.mark.parametrize("zero", [1, 2])
def test_weights_are_gathered_while_nothing_computes(run_shape: Build, zero: int) -> None:
    assert waited(run_shape, 0, 1, zero=zero) == pytest.approx(1)
    assert waited(run_shape, 1, 1, zero=zero) == pytest.approx(1)


def test_zero_3_fetches_behind_both_passes(run_shape: Build, monkeypatch: Any) -> None:
    """A model that stays gathered is fetched for forward passes alone, which take 4 s."""
    assert waited(run_shape, 0, 4, zero=3) == 0
    assert waited(run_shape, 8, 5, zero=3) == pytest.approx(1)
    monkeypatch.setattr("stages.planning.communication.LIVE_NUMBERS", 0)
    assert waited(run_shape, 0, 8, zero=3) == 0
    assert waited(run_shape, 4, 8, zero=3) == 0
    assert waited(run_shape, 5, 8, zero=3) == pytest.approx(1)
    assert waited(run_shape, 0, 18, zero=3) == pytest.approx(5 + 1)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_the_last_bucket_comes_after_the_pass(
    run_shape: Build, zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "last_share", lambda run: 0.25)
    hidden = 2 if zero == 1 else 8
    assert waited(run_shape, hidden, 0, zero=zero) == pytest.approx(hidden / 4)
    more = 2 * hidden  # three quarters of it do not fit behind the pass
    assert waited(run_shape, more, 0, zero=zero) == pytest.approx(more - hidden)


def test_a_small_model_is_one_bucket_and_a_large_one_ends_with_its_table(run_shape: Build) -> None:
    assert last_share(run_shape()) == 1.0
    wide = run_shape({"vocab_size": 65_536, "hidden_size": 4096, "num_hidden_layers": 20})
    assert last_share(wide) == pytest.approx(65_536 * 4096 / wide.model.parameters())
    narrow = run_shape({"vocab_size": 1024, "hidden_size": 4096, "num_hidden_layers": 200})
    assert last_share(narrow) == pytest.approx(2e8 / narrow.model.parameters())


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_processors_hide_nothing(run_shape: Build, zero: int) -> None:
    assert waited(run_shape, 2, 1, zero=zero, gpu=False) == pytest.approx(3)
