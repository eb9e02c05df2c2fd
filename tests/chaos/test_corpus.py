"""SIGKILL of the corpus stage at random moments: no document lost or doubled, the same bytes, and
no more than the unit in hand done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from cluster import stream
from stages.corpus import run as corpus_run_module
from stages.text.documents import read_documents
from tests.chaos.corpus_run import payload, run_stage, write_crawl
from tests.stages.test_cli import ROOT


def check(whole: Path, killed: Path) -> None:
    """The killed run's artifact against the undisturbed one's, and its log of units."""
    assert payload(killed / "out") == payload(whole / "out")
    ids = [document.id for document in read_documents(killed / "out")]
    ledger = json.loads((killed / "out" / "ledger.json").read_text())
    dropped = sum(c["documents"] for by in ledger["dropped"].values() for c in by.values())
    assert len(set(ids)) == len(ids) == ledger["kept"]["documents"]
    assert ledger["in"]["documents"] == ledger["kept"]["documents"] + dropped


def units_done_again(work: Path, kills: int) -> int:
    """Units begun more than once; each kill may cost one, and none is begun that had ended."""
    begun: Counter[str] = Counter()
    ended: set[str] = set()
    for line in (work / "units.log").read_text().splitlines():
        what, unit, _ = line.split()
        if what == "start":
            begun[unit] += 1
            assert unit not in ended, f"unit {unit} was committed and is read again"
        else:
            ended.add(unit)
    again = sum(count - 1 for count in begun.values())
    assert again <= kills
    return again


def kill_runs(folder: Path, kills: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.chaos.corpus_run", str(folder), str(kills), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout.strip().splitlines()[-1])
    struck = int(re.findall(r"(\d+) kills", done.stdout)[0])
    assert struck >= kills
    runs = sorted(folder.glob("killed-*"))
    again = 0
    for work in runs:
        check(folder / "whole", work)
        again += units_done_again(work, kills=4)
    print(f"{struck} kills in {len(runs)} runs, {again} units begun again")


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """A seeded sample of the test below."""
    kill_runs(tmp_path, kills=4, seed=1)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_fifty_kills_at_random_moments(tmp_path: Path) -> None:
    kill_runs(tmp_path, kills=50, seed=100)


@pytest.mark.chaos
@pytest.mark.dist
def test_killed_actors_are_replaced_and_the_bytes_stay(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors that read units die under Ray Data; what they had in hand is done by others."""
    crawl = write_crawl(tmp_path / "crawl")
    run_stage(crawl, tmp_path / "whole")
    killed: list[int] = []
    units = tmp_path / "killed" / "scratch" / "units"

    def kill() -> None:
        """Two workers, each while it holds a unit that is not committed: its folder says who."""
        while len(killed) < 2:
            for half in units.glob("*.part-*") if units.exists() else ():
                worker = int(half.name.rpartition("-")[2])
                if worker not in killed and len(killed) < 2:
                    killed.append(worker)
                    os.kill(worker, signal.SIGKILL)
            time.sleep(0.005)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    run_stage(crawl, tmp_path / "killed", workers=2)
    assert len(killed) == 2
    check(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.chaos
@pytest.mark.dist
@pytest.mark.parametrize("committed", [0, 3, 8])
def test_the_whole_cluster_is_killed(tmp_path: Path, committed: int) -> None:
    """SIGKILL of the driver, Ray's own processes and the actors, all at once; then the same again:
    what was committed is not done again.
    """
    crawl = write_crawl(tmp_path / "crawl")
    run_stage(crawl, tmp_path / "whole")
    work, units = tmp_path / "killed", tmp_path / "killed" / "scratch" / "units"
    first = with_ray(crawl, work)
    while len(done := finished_units(units)) < committed or not units.exists():
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.005)
    driver = psutil.Process(first.pid)
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    first.communicate()
    done = finished_units(units)
    second = with_ray(crawl, work)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    check(tmp_path / "whole", work)
    assert done.items() <= finished_units(units).items()
    print(f"{len(done)} of 10 units were committed when the cluster died, and stayed")


def with_ray(crawl: Path, work: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from tests.chaos.corpus_run import run_with_ray; run_with_ray(*sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(crawl), str(work)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finished_units(units: Path) -> dict[str, int]:
    """Committed units and when each was."""
    found = units.iterdir() if units.exists() else ()
    return {path.name: path.stat().st_ctime_ns for path in found if ".part-" not in path.name}


@pytest.mark.chaos
@pytest.mark.dist
@pytest.mark.parametrize(("workers", "bundles"), [(1, 8), (2, 1), (2, 100), (4, 8), (8, 8)])
def test_any_number_of_actors_and_any_block_size_give_the_same_bytes(
    tmp_path: Path,
    ray_session: None,
    workers: int,
    bundles: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`bundles` for each worker are the blocks of Ray Data: ten units in two, or each its own."""
    monkeypatch.setattr(stream, "_BUNDLES_PER_WORKER", bundles)
    monkeypatch.setattr(corpus_run_module, "FEW_DOCUMENTS", 0)  # every later step in actors too
    crawl = write_crawl(tmp_path / "crawl")
    run_stage(crawl, tmp_path / "whole")
    run_stage(crawl, tmp_path / "many", workers=workers)
    check(tmp_path / "whole", tmp_path / "many")
