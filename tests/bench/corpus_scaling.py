"""The corpus stage with one worker and with two, in turns, on the same pages, as Ray actors.

Beside them two processes that know nothing of each other, each with half the files and no Ray: what
the machine gives at most (two processors that share a core or the memory are not two). Each turn
prints what its manifest would hold for `raylm plan`: seconds of the whole stage and of reading
(from the first unit to the last), MB/s, how busy the workers were, CPU-seconds. `ours` and `peer`
are MB/s of reading with two workers and with the two processes, the best of each; the line before
says how both stand to one worker. `--workers 1 4` takes other numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cluster import session
from stages.corpus import STAGE, Config
from stages.stage import Context
from tests.bench.corpus import write_crawl

FILES, PAGES = 24, 300
ROUNDS = 3


def run_stage(crawl: Path, workers: int, files: Sequence[int] = (FILES,)) -> dict[str, Any]:
    """The `work` that the stage notes of a run from the start, and what it took of this process.
    `files` are those to read, as a slice.
    """
    source = {"path": str(crawl), "files": list(files)}
    config = Config.model_validate({"sources": [source], "workers": workers})
    with tempfile.TemporaryDirectory() as name:
        for part in ("out", "scratch"):
            (Path(name) / part).mkdir()
        context = Context(
            seed=17, out=Path(name) / "out", scratch=Path(name) / "scratch", connect=session.connect
        )
        driver_s = time.process_time()
        metrics = STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
        return metrics["work"] | {"driver_s": time.process_time() - driver_s}


def run_apart(crawl: Path, processes: int) -> dict[str, Any]:
    """The same of processes that share nothing: together as if they were one stage."""
    shares = [[number, FILES, processes] for number in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        works = list(pool.map(partial(run_stage, crawl, 0), shares))
    units = [work["units"] for work in works]
    seconds = max(unit["seconds"] for unit in units)
    together: dict[str, Any] = {"seconds": seconds}
    together["cpu_seconds"] = sum(unit["cpu_seconds"] for unit in units)
    together["busy_share"] = together["cpu_seconds"] / seconds / processes
    together["held_share"] = sum(unit["seconds"] for unit in units) / seconds / processes
    whole = max(work["seconds"] for work in works)
    return {"workers": processes, "seconds": whole, "units": together}


def line(title: str, work: Mapping[str, Any], megabytes: float) -> str:
    units = work["units"]
    rate = megabytes / units["seconds"]
    spent = "" if "driver_s" not in work else f", this process {work['driver_s']:.1f}"
    return (
        f"{title}: whole {work['seconds']:.1f} s, reading {units['seconds']:.1f} s "
        f"(busy {units['busy_share']:.0%}, a unit in hand {units['held_share']:.0%}), "
        f"{rate:.3g} MB/s, {rate / work['workers']:.3g} a core; CPU-seconds: reading "
        f"{units['cpu_seconds']:.1f}{spent}"
    )


def summary(turns: Mapping[str, list[dict[str, Any]]], megabytes: float) -> None:
    """Print the best of each side, and the result as the last line."""
    read = {name: min(turn["units"]["seconds"] for turn in turns[name]) for name in turns}
    cpu = {name: min(turn["units"]["cpu_seconds"] for turn in turns[name]) for name in turns}
    whole = {name: min(turn["seconds"] for turn in turns[name]) for name in turns}
    few, many, apart = turns
    for name in turns:
        print(
            f"corpus_scaling: {name}: reading {read[name]:.1f} s ({read[few] / read[name]:.2f} "
            f"times as fast as {few}), whole {whole[name]:.1f} s, {cpu[name]:.1f} CPU-seconds"
        )
    result = {
        "bench": "corpus_scaling",
        "ours": round(megabytes / read[many], 3),
        "peer": round(megabytes / read[apart], 3),
        "unit": f"MB/s, {many} and {apart}",
        "ratio": round(read[apart] / read[many], 3),
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", nargs=2, type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        crawl = Path(name) / "crawl"
        megabytes = write_crawl(crawl, 17, FILES, PAGES)
        print(f"corpus_scaling: {FILES * PAGES} pages, {megabytes:.1f} MB in {FILES} files")
        few, many = asked.workers
        sides = {
            f"{few} worker{'s' if few > 1 else ''}": partial(run_stage, crawl, few),
            f"{many} workers": partial(run_stage, crawl, many),
            f"{many} processes apart": partial(run_apart, crawl, many),
        }
        turns: dict[str, list[dict[str, Any]]] = {title: [] for title in sides}
        session.connect()
        try:
            for number in range(asked.rounds):
                for title in list(sides) if number % 2 == 0 else list(reversed(sides)):
                    turns[title].append(sides[title]())
                    print(line(title, turns[title][-1], megabytes), flush=True)
        finally:
            session.disconnect()
    summary(turns, megabytes)


if __name__ == "__main__":
    main()
