"""SIGKILL of the whole process tree at any moment, then the same command: it finishes the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import verify
from cluster.storage import LocalStore, read_index
from tests.stages.test_cli import ROOT
from tests.stages.test_recipe import write_recipe

SLOW: dict[str, Any] = {
    "name": "slow",
    "stages": {
        "first": {"stage": "write", "text": "a", "delay_s": 0.2},
        "second": {"stage": "write", "text": "b", "delay_s": 0.2},
        "all": {"stage": "join", "pieces": ["first", "second"], "delay_s": 0.2},
        "base": {"stage": "count", "corpus": "all", "steps": 20, "step_s": 0.02},
        "more": {"stage": "count", "corpus": "all", "model": "base", "steps": 5, "step_s": 0.02},
    },
}


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.toy_stages", *arguments],
        cwd=folder, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def kill_after(folder: Path, seconds: float, *arguments: str) -> bool:
    """Run the command and SIGKILL its tree after that time; False if it had ended by itself."""
    process = start(folder, *arguments)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    return False


def published(store: LocalStore) -> dict[str, tuple[str, float]]:
    """Every visible artifact, each checked to be whole: id -> (created, its manifest's time)."""
    found = {}
    for artifact_id in store.ids():
        artifact = store.get(artifact_id)
        assert verify(artifact) == [], f"{artifact_id} is visible but not whole"
        written = (artifact.path / "manifest.json").stat().st_mtime_ns
        found[artifact_id] = (artifact.manifest.created, written)
    folders = {path.name for path in (store.folder / "artifacts").glob("*")}
    assert folders == set(found), "every folder under artifacts/ is a whole artifact"
    return found


def finish_through_kills(
    folder: Path, store: LocalStore, moments: list[float], *arguments: str, limit_s: float
) -> dict[str, tuple[str, float]]:
    """Kill at each moment, then run to the end; nothing published may be made again."""
    before: dict[str, tuple[str, float]] = {}
    for moment in moments:
        kill_after(folder, moment, *arguments)
        now = published(store)
        assert {key: now.get(key) for key in before} == before, "a published stage was redone"
        before = now
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=limit_s)
    assert process.returncode == 0, output.decode()[-3000:]
    after = published(store)
    assert {key: after.get(key) for key in before} == before, "a published stage was redone"
    return after


@pytest.mark.parametrize(
    "offset",
    [0.0, pytest.param(0.07, marks=pytest.mark.chaos), pytest.param(0.13, marks=pytest.mark.chaos)],
)
def test_kills_of_small_stages(tmp_path: Path, offset: float) -> None:
    recipe = write_recipe(tmp_path, SLOW)
    store = LocalStore(tmp_path / "runs")
    moments = [0.5 + offset + 0.1 * i for i in range(8)]
    finish_through_kills(tmp_path, store, moments, "run", recipe, limit_s=60)
    index = read_index(store, "slow")
    assert set(index) == set(SLOW["stages"])
    assert store.get(index["base"]["id"]).file("count.txt").read_text() == "a+b*20"
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    whole = LocalStore(undisturbed / "runs")
    finish_through_kills(undisturbed, whole, [], "run", recipe, limit_s=60)
    for entry in index.values():
        files = store.manifest(entry["id"]).files
        assert files == whole.manifest(entry["id"]).files, "the same bytes as without a kill"


@pytest.mark.chaos
@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_kills_of_recipe_nano(tmp_path: Path) -> None:
    began = time.monotonic()
    store = LocalStore(tmp_path / "runs")
    finish_through_kills(tmp_path, store, [6.0, 20.0, 30.0, 40.0], "run", "nano", limit_s=400)
    assert set(read_index(store, "nano")) >= {"base", "chat", "int8", "report"}
    assert (tmp_path / "runs" / "nano" / "report.json").is_file()
    assert kill_after(tmp_path, 60, "run", "nano") is False, "a finished run has nothing to do"
    print(f"nano through four kills: {time.monotonic() - began:.0f} s")
