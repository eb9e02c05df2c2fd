"""Offloading: what it asks of the host's memory, link and processor, by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import LocalStore
from stages.graph import build_graph
from stages.hardware import Hardware
from stages.planning import plan_figures
from stages.planning.host import HostMemory, HostTraffic, host_memory, host_traffic
from stages.planning.machine import Machine, planned_machine
from stages.planning.memory import training_memory
from stages.planning.roofline import step_time
from stages.planning.run_shape import RunShape
from stages.recipe import load_recipe

Build = Callable[..., RunShape]
OPTIMIZER = {"offload_optimizer": "cpu"}
BOTH = OPTIMIZER | {"offload_weights": "cpu"}


def run_of(build: Build, micro_batches: int = 1, **parallel: Any) -> RunShape:
    """Four workers of a row each."""
    return build(
        batch_tokens=128 * 4 * micro_batches,
        parallel={"workers": 4, "rows": 1, "gpu": True, **parallel},
    )


def figures_of(*changes: str) -> dict[str, Any]:
    recipe = load_recipe("7b", ["hardware.device=h100", *changes])
    store = LocalStore(Path("nowhere"))
    graph = build_graph(recipe, store, sources_needed=False)
    return dict(plan_figures(recipe, graph, store)["base"])


def offloading(*places: str) -> list[str]:
    return [f"stages.base.parallel.{place}=cpu" for place in places]


@pytest.mark.parametrize(
    ("zero", "micro_batches", "parallel", "gradients", "updated", "fetched"),
    [
        (1, 1, OPTIMIZER, 1, 1, 0),
        (1, 3, OPTIMIZER, 1, 1, 0),
        (2, 1, OPTIMIZER, 1, 1, 0),
        (2, 3, OPTIMIZER, 6, 1, 0),  # down, up and down twice, and down to the update
        (3, 1, OPTIMIZER, 3, 1, 0),  # down, back for its norm, down to the update
        (3, 3, OPTIMIZER, 7, 1, 0),
        (3, 3, BOTH, 7, 0, 3),  # the update's result is where weights are fetched from
        (3, 3, {"offload_weights": "cpu"}, 0, 1, 3),
        (2, 3, {}, 0, 0, 0),
    ],
)
def test_what_crosses_the_link(
    run_shape: Build,
    zero: int,
    micro_batches: int,
    parallel: dict[str, Any],
    gradients: int,
    updated: int,
    fetched: int,
) -> None:
    """In times of a rank's share; the whole model fits into what ZeRO 3 keeps gathered."""
    run = run_of(run_shape, micro_batches, zero=zero, **parallel)
    share = 4.0 * run.model.parameters() / 4
    update = (28 + 8 + 8) / 4 * share if "offload_optimizer" in parallel else 0.0
    expected = HostTraffic(gradients * share, fetched * share, updated * share, update)
    assert dataclasses.asdict(host_traffic(run)) == pytest.approx(dataclasses.asdict(expected))


@pytest.mark.parametrize("last", [0.0, 1.0])
def test_a_step_waits_for_the_link_and_for_the_hosts_update(
    run_shape: Build, last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an H100 with its datasheet's figures and the shares that are assumed of them; with all
    gradients in the last bucket nothing hides them.
    """
    monkeypatch.setattr("stages.planning.roofline.last_share", lambda run: last)
    plain, away = (run_of(run_shape, zero=2, **offload) for offload in ({}, OPTIMIZER))
    machine = planned_machine(Hardware(device="h100"), away)
    before, after = step_time(plain, machine), step_time(away, machine)
    assert before.host == 0 and before.update > 0
    assert after.update == 0
    share = 4.0 * away.model.parameters() / 4
    link = 0.8 * 64e9
    computing = before.products + before.attention + before.passes
    sent = 2 * 0.75 * 4.0 * away.model.parameters() / (0.8 * 450e9)  # of gradients
    hidden = max(0.0, computing * 2 / 3 - sent) * (1 - last)
    update = 44 / 4 * share / 12e9  # one thread's core
    expected = max(0.0, share / link - hidden) + share / link + update
    assert after.host == pytest.approx(expected)
    assert after.communication == before.communication
    assert after.total == pytest.approx(before.total - before.update + expected)


@pytest.mark.parametrize(
    ("threads", "cores_gbyte_s", "expected"),
    [(1, 12, 12e9), (4, 12, 48e9), (16, 12, 0.7 * 614.4e9 / 4), (1, 200, 0.7 * 614.4e9 / 4)],
)
def test_threads_update_until_the_hosts_memory_is_busy(
    run_shape: Build, threads: int, cores_gbyte_s: float, expected: float
) -> None:
    run = run_of(run_shape, zero=2, threads=threads, **OPTIMIZER)
    hardware = Hardware(device="h100", core_gbyte_s=cores_gbyte_s)
    assert planned_machine(hardware, run).host_bandwidth == expected
    assert planned_machine(hardware, run).host_memory == 0.8 * 549.8e9 / 4, "four share a node"


def power(size: float) -> float:
    """The next power of two, which PyTorch pins."""
    result = 1
    while result < size:
        result *= 2
    return result


def test_the_hosts_memory_by_part(run_shape: Build) -> None:
    """AdamW has two groups, and each is one pinned array; its moments are not pinned."""
    run = run_of(run_shape, zero=2, micro_batches=3, **OPTIMIZER)
    number, tables = run.model.parameters(), 1024 * 128
    flat = power(number - tables) + power(tables)  # a quarter of four bytes
    layer = (128 * 256, 64 * 128, 64 * 128, 256 * 128, *[384 * 128] * 3)
    adding = (4 * sum(power(4 * size) for size in layer) + power(4 * tables)) / 4
    assert host_memory(run) == HostMemory(
        weights=0.0,
        gradients=flat + adding,
        optimizer=2 * number + flat,
        copies=flat + power(4 * tables),
        checkpoint=12 * number / 4,
        process=4 * 2**30,
    )
    third = host_memory(run_of(run_shape, zero=3, **BOTH))
    assert third.weights == flat and third.gradients == flat + power(number)
    assert third.optimizer == 3 * number and third.copies == 0
    none = host_memory(run_of(run_shape, zero=3))
    assert none.weights == none.gradients == none.optimizer == none.copies == 0


def test_what_is_offloaded_leaves_the_device(run_shape: Build) -> None:
    here = training_memory(run_of(run_shape, zero=3))
    away = training_memory(run_of(run_shape, zero=3, **BOTH))
    assert (away.optimizer, away.weights, away.gradients) == (0, 0, 0)
    left = here.optimizer + here.weights + here.gradients
    assert away.total == pytest.approx(here.total - left)
    first = training_memory(run_of(run_shape, zero=1, **OPTIMIZER))
    assert first.gradients == 4 * run_shape().model.parameters(), "until a step's end"
    weights = training_memory(run_of(run_shape, zero=3, offload_weights="cpu"))
    assert weights == dataclasses.replace(here, weights=0.0)


def test_a_processor_is_its_own_host(run_shape: Build) -> None:
    """Nothing crosses a link, and what is offloaded is in the same memory."""
    here, away = (run_of(run_shape, zero=3, gpu=False, **offload) for offload in ({}, OPTIMIZER))
    machine = Machine(
        name="laptop", products=1e11, attention=5e10, bandwidth=1e10, streaming=1e10, memory=8e9,
        link=5e9, network=1e9, per_node=2, kernel_s=0.0, peak=1e11,
    )  # fmt: skip
    assert step_time(here, machine) == step_time(away, machine)
    kept = training_memory(away)
    assert kept.optimizer == training_memory(here).optimizer
    assert kept.gradients == 2 * training_memory(here).gradients


def test_offloading_costs_time_and_is_named() -> None:
    zero = "stages.base.parallel.zero=3"
    plain = figures_of(zero)
    optimizer = figures_of(zero, *offloading("offload_optimizer"))
    both = figures_of(zero, *offloading("offload_optimizer", "offload_weights"))
    assert "host" not in plain["step"] and ", host " in optimizer["step"]
    assert optimizer["tokens per second"] < 0.99 * plain["tokens per second"]
    assert both["tokens per second"] < plain["tokens per second"]
    share = 4.0 * plain["parameters"] / 64 / 2**30
    name = "to and from the host per worker and step GiB"
    assert optimizer[f"{name}: gradients"] == pytest.approx(5 * share, rel=1e-3)
    assert optimizer[f"{name}: weights"] == pytest.approx(share, rel=1e-3)
    fetched = 2 * (2 * share - 4e9 / 64 / 2**30)
    assert both[f"{name}: weights"] == pytest.approx(fetched, rel=1e-3)


def test_a_host_that_is_too_small_is_said_with_what_to_change() -> None:
    changes = ["stages.base.parallel.zero=3", "stages.base.parallel.workers=8"]
    changes += offloading("offload_optimizer", "offload_weights")
    fitting = figures_of(*changes)
    assert fitting["fits"].startswith("yes: ")
    assert fitting["fits"].endswith(" of 51.2 GiB of the host")
    said = figures_of(*changes, "hardware.host_memory_gb=256")["fits"]
    assert said.startswith("NO: does not fit the host: ") and " of 23.8 GiB a worker" in said
    assert "most of it gradients" in said or "most of it optimizer" in said
    assert "more workers, more of hardware.host_memory_gb, or offload less" in said
