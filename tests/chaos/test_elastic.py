"""Workers and nodes die and come while a training runs: it goes on, and loses next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.elastic import EVERY
from tests.dist import faults
from tests.dist.left_behind import losses
from tests.dist.ranks import job, run, write_tokens
from tests.stages.test_cli import ROOT


@pytest.mark.chaos
@pytest.mark.dist
@pytest.mark.timeout(900)
def test_a_killed_worker_a_dead_node_and_a_new_one(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos.elastic", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=800,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    said = json.loads(ended.stdout.splitlines()[-1])
    print(json.dumps(said["faults"]))
    _launch, *harm = said["faults"]
    assert [fault["workers"] for fault in harm] == [2, 1, 2]
    for fault in harm:
        assert fault["done"] - fault["resumed_at"] <= EVERY + 1, fault
        assert fault["resumed_at"] > 0, fault
    alone = job(write_tokens(tmp_path / "t"), tmp_path / "alone", steps=400)
    run(1, faults.until, alone | {"config": alone["config"]}, 40, log=tmp_path / "log")
    expected = losses(tmp_path / "alone")[: len(said["losses"])]
    assert said["losses"][: len(expected)] == pytest.approx(expected, abs=1e-5)
