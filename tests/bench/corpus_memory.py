"""Peak memory of the corpus stage's work as documents grow tenfold: it should stay flat.

Each size runs in a process of its own: JSONL units of a thousand documents through all steps, then
dedup and the corpus's files. `ours` is the larger run's peak, `peer` the smaller one's; both also
print the peak after twenty documents, when all libraries and models are there. The bounds on what
is held (words remembered, keys sorted at once) are set so low that the smaller run reaches them:
what grows is what they do not bound.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

UNIT, TIMES = 1000, 10
REMEMBERED, KEYS_AT_ONCE = 1 << 12, 1 << 14


def write_units(folder: Path, documents: int) -> None:
    """Files of at most `UNIT` documents."""
    from tests.stages.corpus.crawl import english

    folder.mkdir()
    for first in range(0, documents, UNIT):
        with (folder / f"{first:06d}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(first, min(documents, first + UNIT)):
                row = {"text": english(number), "url": f"http://a.org/{number}"}
                file.write(json.dumps(row) + "\n")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(documents: int) -> None:
    """In a process of its own: print the peak after a few documents, and after all of them."""
    from cluster import session

    session.prepare_environment()  # as the command does before it reads anything
    from stages.corpus import STAGE, Config, duplicates
    from stages.stage import Context
    from stages.text import words

    words._REMEMBERED, duplicates.KEYS_AT_ONCE = REMEMBERED, KEYS_AT_ONCE
    peaks = []
    for count in (20, documents):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_units(folder / "crawl", count)
            for part in ("out", "scratch"):
                (folder / part).mkdir()
            config = Config.model_validate(
                {"sources": [{"path": str(folder / "crawl"), "language": "en"}], "workers": 0}
            )
            context = Context(seed=17, out=folder / "out", scratch=folder / "scratch")
            STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
            peaks.append(peak_mib())
    print(json.dumps(peaks))


def main() -> None:
    peaks = []
    for documents in (UNIT, UNIT * TIMES):
        command = [sys.executable, "-m", "tests.bench.corpus_memory", str(documents)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        before, peak = json.loads(done.stdout.splitlines()[-1])
        peaks.append(peak)
        print(
            f"corpus_memory: {documents} documents, peak {peak:.0f} MiB, {before:.0f} before them"
        )
    print(
        json.dumps(
            {"bench": "corpus_memory", "ours": round(peaks[1], 1), "peer": round(peaks[0], 1),
             "unit": f"MiB at the most, {UNIT * TIMES} and {UNIT} documents",
             "ratio": round(peaks[1] / peaks[0], 3)}
        )
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        main()
