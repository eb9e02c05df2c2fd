"""Workers and nodes die and come while a training runs: it goes on, and loses next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.elastic import EVERY
from tests.dist import faults
from tests.dist.left_behind import losses
from tests.dist.ranks import job, run, write_tokens
from tests.stages.test_cli import ROOT

pytestmark = [pytest.mark.dist, pytest.mark.timeout(900)]


def _through(plan: str, folder: Path) -> dict[str, Any]:
    """What `tests.chaos.elastic` says of a plan's faults; its losses are those of one process."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos.elastic", str(folder), plan],
        cwd=ROOT, capture_output=True, text=True, timeout=800,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    said = dict(json.loads(ended.stdout.splitlines()[-1]))
    print(json.dumps(said["faults"]))
    alone = job(write_tokens(folder / "t"), folder / "alone", steps=400)
    run(1, faults.until, alone, 40, log=folder / "log")
    expected = losses(folder / "alone")[: len(said["losses"])]
    assert said["losses"][: len(expected)] == pytest.approx(expected, abs=1e-5)
    return said


@pytest.mark.chaos
def test_a_killed_worker_a_dead_node_and_a_new_one(tmp_path: Path) -> None:
    _launch, *harm = _through("sudden", tmp_path)["faults"]
    assert [fault["workers"] for fault in harm] == [2, 1, 2]
    for fault in harm:
        assert fault["done"] - fault["resumed_at"] <= EVERY + 1, fault
        assert fault["resumed_at"] > 0, fault


def test_nodes_that_come_and_go_cost_no_step_where_they_are_told(tmp_path: Path) -> None:
    said = _through("told", tmp_path)
    _launch, *faults = said["faults"]
    assert [fault["workers"] for fault in faults] == [2, 1]
    assert [left["ranks"] for left in said["left"]] in ([[0], [0]], [[0], [1]])
    for fault, left in zip(faults, said["left"], strict=True):
        assert fault["resumed_at"] == left["step"] >= fault["done"], "all is kept, by no other save"
