"""A verdict says all that it weighs, and advises nothing that is done already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.hardware import Hardware
from stages.planning.fitting import advice_for, memory_figures, on_device
from stages.planning.machine import planned_machine
from stages.planning.memory import training_memory
from stages.planning.run_shape import RunShape

Build = Callable[..., RunShape]
K8S = Path(__file__).parents[3] / "k8s"


@pytest.mark.parametrize(
    ("largest", "parallel", "expected"),
    [
        (
            "activations",
            {"rows": 2},
            "parallel.activation_checkpointing: true, or fewer parallel.rows",
        ),
        ("activations", {"rows": 2, "activation_checkpointing": True}, "fewer parallel.rows"),
        (
            "activations",
            {"rows": 1, "activation_checkpointing": True},
            "a larger parallel.tensor",
        ),
        ("weights", {"zero": 2}, "parallel.zero 3, or a larger parallel.tensor"),
        (
            "weights",
            {"zero": 3, "tensor": 2, "workers": 2, "offload_weights": "cpu"},
            "more workers",
        ),
        ("weights", {"workers": 2, "pipeline": 2}, "a larger parallel.pipeline"),
        ("gradients", {"zero": 2}, "more workers, or a larger parallel.tensor"),
        ("optimizer", {}, "parallel.zero 1 or more"),
        ("optimizer", {"zero": 1}, "more workers, or parallel.offload_optimizer: cpu"),
        ("optimizer", {"zero": 1, "offload_optimizer": "cpu"}, "more workers"),
        ("logits", {"rows": 1}, "a smaller vocabulary"),
        ("buffers", {}, "a device with more memory, or a smaller model"),
    ],
)
def test_advice_is_of_what_is_not_done(
    run_shape: Build, largest: str, parallel: dict[str, Any], expected: str
) -> None:
    assert advice_for(largest, run_shape(parallel={"gpu": True, **parallel})) == expected


def test_the_reserve_is_said(run_shape: Build) -> None:
    """What the figures leave free and a device must have: it fits to the byte, and not below."""
    run = run_shape(parallel={"gpu": True})
    memory = training_memory(run)
    needed = memory.total * 1.05 + 2 * 2**30
    assert memory.total + memory.reserve == pytest.approx(needed)
    assert on_device(run, "H100", needed + 1)[0] and not on_device(run, "H100", needed - 1)[0]
    said = on_device(run, "H100", 80e9)[1]
    assert f" and {memory.reserve / 2**30:.1f} in reserve of 74.5 GiB on H100" in said


def test_a_nodes_memory_is_what_its_pod_asks_for(run_shape: Build) -> None:
    patches = yaml.safe_load((K8S / "overlays/gpu/gpus.yaml").read_text(encoding="utf-8"))
    (limits,) = (p["value"]["limits"] for p in patches if p["path"].endswith("/resources"))
    assert limits["memory"].endswith("Gi")
    hardware = Hardware(device="h100")
    assert hardware.host_memory_gb * 1e9 == pytest.approx(
        int(limits["memory"].removesuffix("Gi")) * 2**30, rel=1e-3
    )
    assert hardware.per_node == int(limits["nvidia.com/gpu"])
    run = run_shape(parallel={"workers": 16, "rows": 1, "gpu": True})
    figures = memory_figures(run, planned_machine(hardware, run))
    share = figures["host memory GiB a worker may take (of hardware.host_memory_gb)"]
    assert share == pytest.approx(0.8 * 512 / 8, rel=1e-3)
