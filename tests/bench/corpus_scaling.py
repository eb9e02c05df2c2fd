"""The corpus stage with two workers against one: the same pages in the same files, Ray actors both
times, in turns.

Each turn prints what its manifest would hold for `raylm plan`: seconds of the whole stage and of
reading (from the first unit to the last), CPU-seconds, MB/s a core, and how busy the workers were.
`ours` and `peer` are MB/s of reading with two workers and with one, the best of each; what the
whole stage adds (actors that start, duplicates, the books) is printed before that. `--workers 1 4`
takes other numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import session
from stages.corpus import STAGE, Config
from stages.stage import Context
from tests.bench.corpus import write_crawl

FILES, PAGES = 24, 150
ROUNDS = 3
STEPS = ("lines", "units", "duplicates", "files")


def run_stage(crawl: Path, workers: int) -> dict[str, Any]:
    """The `work` that the stage notes of a run from the start, and what it took of this process."""
    config = Config.model_validate({"sources": [{"path": str(crawl)}], "workers": workers})
    with tempfile.TemporaryDirectory(dir=crawl.parent) as name:
        for part in ("out", "scratch"):
            (Path(name) / part).mkdir()
        context = Context(
            seed=17, out=Path(name) / "out", scratch=Path(name) / "scratch", connect=session.connect
        )
        driver_s = time.process_time()
        metrics = STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
        return metrics["work"] | {"driver_s": time.process_time() - driver_s}


def line(work: Mapping[str, Any], megabytes: float) -> str:
    units, workers = work["units"], work["workers"]
    rate = megabytes / units["seconds"]
    spent = sum(work[step].get("cpu_seconds", 0) for step in STEPS)
    return (
        f"{workers} workers: whole {work['seconds']:.1f} s, reading {units['seconds']:.1f} s "
        f"(busy {units['busy_share']:.0%}, a unit in hand {units['held_share']:.0%}), "
        f"{rate:.3g} MB/s, {rate / workers:.3g} a core; CPU-seconds: reading "
        f"{units['cpu_seconds']:.1f}, all steps {spent:.1f}, this process {work['driver_s']:.1f}"
    )


def summary(turns: Mapping[int, list[dict[str, Any]]], megabytes: float) -> None:
    """Print the best of each number of workers, and the result as the last line."""
    few, many = turns
    read = {w: min(turn["units"]["seconds"] for turn in turns[w]) for w in turns}
    whole = {w: min(turn["seconds"] for turn in turns[w]) for w in turns}
    cpu = {w: min(turn["units"]["cpu_seconds"] for turn in turns[w]) for w in turns}
    faster = read[few] / read[many]
    print(
        f"corpus_scaling: {few} to {many} workers: reading {read[few]:.1f} to {read[many]:.1f} s "
        f"({faster:.2f} times as fast, efficiency {faster * few / many:.2f}), whole stage "
        f"{whole[few]:.1f} to {whole[many]:.1f} s ({whole[few] / whole[many]:.2f}), CPU-seconds of "
        f"reading {cpu[few]:.1f} to {cpu[many]:.1f}"
    )
    result = {
        "bench": "corpus_scaling",
        "ours": round(megabytes / read[many], 3),
        "peer": round(megabytes / read[few], 3),
        "unit": f"MB/s read with {many} workers and with {few}",
        "ratio": round(faster, 3),
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", nargs=2, type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    turns: dict[int, list[dict[str, Any]]] = {workers: [] for workers in asked.workers}
    with tempfile.TemporaryDirectory() as name:
        crawl = Path(name) / "crawl"
        megabytes = write_crawl(crawl, 17, FILES, PAGES)
        print(f"corpus_scaling: {FILES * PAGES} pages, {megabytes:.1f} MB in {FILES} files")
        session.connect()
        try:
            for number in range(asked.rounds):
                for workers in list(turns) if number % 2 == 0 else list(reversed(turns)):
                    turns[workers].append(run_stage(crawl, workers))
                    print(line(turns[workers][-1], megabytes), flush=True)
        finally:
            session.disconnect()
    summary(turns, megabytes)


if __name__ == "__main__":
    main()
