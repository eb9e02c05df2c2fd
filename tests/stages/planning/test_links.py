"""Which link a group's exchanges cross, against where `Mesh` puts every rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed as dist

from stages.hardware import Hardware
from stages.planning.machine import planned_machine
from stages.planning.roofline import Links, step_time
from stages.planning.run_shape import RunShape
from stages.tune.mesh import Mesh

Build = Callable[..., RunShape]
SHAPES: list[dict[str, Any]] = [
    {"workers": 16, "pipeline": 2},
    {"workers": 8, "pipeline": 2},
    {"workers": 24, "pipeline": 2},
    {"workers": 32, "pipeline": 4},
    {"workers": 16, "tensor": 2},
    {"workers": 8, "tensor": 2},
    {"workers": 12, "sequence": 2},
    {"workers": 16, "sequence": 2},
    {"workers": 16},
    {"workers": 4},
    {"workers": 12, "tensor": 2},
]


def ranks_by_group(run: RunShape, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[int]]]:
    """Every group's ranks, by kind."""
    groups: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    monkeypatch.setattr(dist, "get_world_size", lambda: run.workers)
    for rank in range(run.workers):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        mesh = Mesh.of(run.config.parallel)
        groups["tensor"][mesh.data_rank, mesh.stage, mesh.sequence_rank].append(rank)
        groups["sequence"][mesh.data_rank, mesh.stage, mesh.tensor_rank].append(rank)
        groups["pipeline"][mesh.data_rank, mesh.tensor_rank, mesh.sequence_rank].append(rank)
        groups["replicas"][mesh.stage, mesh.tensor_rank].append(rank)
    return {kind: list(found.values()) for kind, found in groups.items()}


@pytest.mark.parametrize("per_node", [4, 8])
@pytest.mark.parametrize("parallel", SHAPES)
def test_a_group_that_spans_nodes_crosses_the_network(
    run_shape: Build, monkeypatch: pytest.MonkeyPatch, parallel: dict[str, Any], per_node: int
) -> None:
    run = run_shape(batch_tokens=128 * 96, parallel={"rows": 1, "gpu": True, **parallel})
    machine = planned_machine(Hardware(device="h100", per_node=per_node), run)
    links = Links(run, machine)
    for kind, groups in ranks_by_group(run, monkeypatch).items():
        spans = any(len({rank // per_node for rank in ranks}) > 1 for ranks in groups)
        expected = machine.network if spans else machine.link
        assert getattr(links, kind) == expected, kind


def test_stages_of_a_pipeline_send_over_the_network_and_data_ranks_do_not(
    run_shape: Build,
) -> None:
    """16 workers in two nodes, two stages: each node has one stage's eight data ranks."""
    run = run_shape(parallel={"workers": 16, "pipeline": 2, "rows": 1, "gpu": True})

    def time(network_gbit: float) -> float:
        machine = planned_machine(Hardware(device="h100", network_gbit=network_gbit), run)
        return step_time(run, machine).communication

    tokens, width = 128 * 64 / 8, 128  # an eighth of the batch
    sent = tokens * (width * 4 + 8)
    slower = sent / (0.8 * 10e9 / 8) - sent / (0.8 * 100e9 / 8)
    assert time(10) - time(100) == pytest.approx(slower)
