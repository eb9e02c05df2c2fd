"""Runs the corpus stage on small crawls in a process that may be killed at any moment.

Imports are paid once: a server process forks a child for every run, so a kill costs milliseconds.
Each start and end of a unit is a line of `units.log`, written by whoever works on it.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import signal
import time
from pathlib import Path

from stages.corpus import STAGE, Config
from stages.corpus.sources import Job
from stages.corpus.unit import UnitWorker
from stages.stage import Context
from tests.stages.corpus.crawl import english, html, record, write_warc

UNITS, PAGES = 10, 6
STUCK_S = 120.0
"""A child that takes so long says where it stands, and ends."""


def write_crawl(folder: Path) -> Path:
    """Many small archives with duplicates within and across them."""
    for unit in range(UNITS):
        pages = [(f"http://{unit}.org/{n}", english(unit * PAGES + n)) for n in range(PAGES)]
        pages.append((f"http://{unit}.org/copy", english(max(0, unit - 3) * PAGES)))
        pages.append((f"http://{unit}.org/spam", "Buy cheap watches now! " * 60))
        records = [record(url, html(text)) for url, text in pages]
        write_warc(folder / f"crawl-{unit:05d}.warc.gz", records)
    return folder


def run_stage(crawl: Path, work: Path, workers: int = 0) -> None:
    """The stage as the pipeline runs it: an empty `out`, and `scratch` as it was left."""
    out = work / "out"
    for path in out.glob("*") if out.exists() else ():
        path.unlink()
    for folder in (out, work / "scratch"):
        folder.mkdir(parents=True, exist_ok=True)
    config = Config.model_validate(
        {"sources": [{"path": str(crawl), "name": "crawl"}], "workers": workers,
         "documents_per_file": 12, "heldout_fraction": 0.1}
    )  # fmt: skip
    context = Context(seed=17, out=out, scratch=work / "scratch")
    STAGE.run(config, {"crawls": [], "decontaminate": []}, context)


def run_with_ray(crawl: str, work: str) -> None:
    """The stage in a Ray session of its own, with two actors."""
    from cluster import session

    session.connect()
    run_stage(Path(crawl), Path(work), workers=2)
    session.disconnect()


def log_units(work: Path) -> None:
    """Have every unit's start and end written down, in this process and what it forks."""
    do = UnitWorker.__call__

    def logged(self: UnitWorker, job: Job) -> str:
        _say(work, f"start {job.number} {os.getpid()}")
        name = do(self, job)
        _say(work, f"end {job.number} {os.getpid()}")
        return name

    UnitWorker.__call__ = logged  # type: ignore[method-assign]


def _say(work: Path, line: str) -> None:
    with (work / "units.log").open("a") as log:
        log.write(line + "\n")


def kill_at_random(crawl: Path, work: Path, kills: int, seed: int, longest_s: float) -> int:
    """Start the stage and SIGKILL it after a random time, `kills` times, then let it finish; how
    many of the kills struck. Forks, so the caller must have no threads that matter.
    """
    draw, struck = random.Random(seed), 0
    for _ in range(kills):
        child = _fork(crawl, work)
        time.sleep(draw.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        struck += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):  # it had finished: begin another run elsewhere
            break
    child = _fork(crawl, work)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the run after the kills ended with {status}")
    return struck


def _fork(crawl: Path, work: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        log_units(work)
        run_stage(crawl, work)
        os._exit(0)
    except BaseException as error:
        _say(work, f"error {error!r}")
        os._exit(1)


def payload(folder: Path) -> dict[str, str]:
    """Every file's hash."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


if __name__ == "__main__":
    import sys

    where, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    crawl = write_crawl(where / "crawl")
    run_stage(crawl, where / "warm")  # pays for the models
    begun = time.perf_counter()
    run_stage(crawl, where / "whole")
    longest, struck, turn = time.perf_counter() - begun, 0, 0
    while struck < kills:
        work = where / f"killed-{turn:02d}"
        work.mkdir()
        struck += kill_at_random(crawl, work, min(4, kills - struck), seed + turn, longest)
        turn += 1
    print(f"{struck} kills in {turn} runs, each within {longest:.2f} s of its start")
