"""Peak memory of the corpus stage's work as documents grow tenfold: it should stay flat.

Each size runs in a process of its own: one JSONL unit through all steps, then dedup and the
corpus's files. `ours` is the larger run's peak, `peer` the smaller one's; both also print the peak
after twenty documents, when all libraries and models are there.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL, TIMES = 1000, 10


def write_unit(path: Path, documents: int) -> None:
    from tests.stages.corpus.crawl import english

    with path.open("w", encoding="utf-8") as file:
        for number in range(documents):
            file.write(
                json.dumps({"text": english(number), "url": f"http://a.org/{number}"}) + "\n"
            )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(documents: int) -> None:
    """In a process of its own: print the peak after a few documents, and after all of them."""
    from stages.corpus import STAGE, Config
    from stages.stage import Context

    peaks = []
    for count in (20, documents):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_unit(folder / "a.jsonl", count)
            for part in ("out", "scratch"):
                (folder / part).mkdir()
            config = Config.model_validate(
                {"sources": [{"path": str(folder / "a.jsonl"), "language": "en"}], "workers": 0}
            )
            context = Context(seed=17, out=folder / "out", scratch=folder / "scratch")
            STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
            peaks.append(peak_mib())
    print(json.dumps(peaks))


def main() -> None:
    peaks = []
    for documents in (SMALL, SMALL * TIMES):
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
             "unit": f"MiB at the most, {SMALL * TIMES} and {SMALL} documents",
             "ratio": round(peaks[1] / peaks[0], 3)}
        )
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        main()
