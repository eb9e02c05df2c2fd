"""MinHash signatures per CPU-second: ours against stock datatrove's first stage, the same numbers;
the search for duplicates over the same documents, cut into 1, 2, 4 and 8 partitions (CPU-seconds in
all) and given to 1 and 2 workers (wall time); and its recall by similarity beside the LSH curve.

The documents are words drawn from a Zipf distribution, one in five an edited copy of another.
Recall is measured on pairs of sets of known Jaccard similarity, with as many decoys at 0.6.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from stages.corpus.duplicates import Search, Task, find_duplicates
from stages.corpus.unit_files import CommittedUnit, Outcome, UnitWriter
from stages.text import dedup
from stages.text.documents import Document
from stages.tune.intervals import wilson
from tests.bench.harness import compare, cpu_rate
from tests.stages.corpus import planted

UNITS, DOCUMENTS, WORDS = 8, 250, 400
PARTITIONS = (1, 2, 4, 8)
SIMILARITIES, PAIRS = (0.7, 0.75, 0.8, 0.85, 0.9), 4000
THRESHOLD, DECOY = 0.7, 0.6


def texts(count: int, seed: int = 3) -> list[str]:
    """Documents of `WORDS` words; every fifth is another with 2 % of its words changed."""
    draw, source = np.random.default_rng(seed), random.Random(seed)
    words = ["".join(source.choices("abcdefghijklmnoprstuvwy", k=2 + n % 9)) for n in range(20000)]
    found: list[list[str]] = []
    for number in range(count):
        if number % 5 == 4:
            found.append(list(source.choice(found)))
            for place in source.sample(range(WORDS), WORDS // 50):
                found[-1][place] = source.choice(words)
        else:
            ranks = np.minimum(draw.zipf(1.2, WORDS), len(words)) - 1
            found.append([words[rank] for rank in ranks])
    return [" ".join(document) for document in found]


def write_units(folder: Path, documents: Sequence[str]) -> list[CommittedUnit]:
    """The documents as committed units."""
    size = -(-len(documents) // UNITS)
    for unit in range(UNITS):
        with UnitWriter(folder / f"{unit:06d}", samples=0) as written:
            for row, text in enumerate(documents[unit * size : (unit + 1) * size]):
                document = Document(f"{unit}-{row}", text, "", "bench", "en")
                written.keep(document, dedup.shingles(text, "en"))
                written.add(Outcome(row, "", len(text), document.id, "en"))
    return [CommittedUnit(path) for path in sorted(folder.iterdir())]


def in_this_process(make: Callable[[], Task], numbers: Sequence[int]) -> None:
    task = make()
    for number in numbers:
        task(number)


def _one(make: Callable[[], Task], number: int) -> str:
    return make()(number)


def search_times(units: list[CommittedUnit], folder: Path) -> None:
    """Print CPU-seconds by partitions and wall seconds by workers; all must drop the same."""
    cpu: dict[int, float] = {}
    answers = []
    for turn in range(3):
        for partitions in PARTITIONS:
            search = Search(
                units, folder / f"{turn}-{partitions}", THRESHOLD, partitions=partitions
            )
            begun = time.process_time()
            gone = find_duplicates(search, in_this_process)
            cpu[partitions] = min(cpu.get(partitions, 1e9), time.process_time() - begun)
            answers.append(sorted(int(n) for path in gone for n in np.load(path)[0]))
    if any(answer != answers[0] for answer in answers):
        raise SystemExit("the number of partitions changed what was dropped")
    shown = ", ".join(f"{n}: {cpu[n]:.2f} s ({cpu[n] / cpu[1]:.2f}x)" for n in PARTITIONS)
    print(f"minhash: {len(answers[0])} of {UNITS * DOCUMENTS} dropped; CPU by partitions {shown}")
    wall: dict[int, float] = {}
    context = multiprocessing.get_context("fork")
    for turn in range(3):
        for workers in (1, 2):
            with ProcessPoolExecutor(workers, mp_context=context) as pool:
                list(pool.map(abs, range(workers)))  # started

                def run(
                    make: Callable[[], Task],
                    numbers: Sequence[int],
                    pool: ProcessPoolExecutor = pool,
                ) -> None:
                    list(pool.map(_one, [make] * len(numbers), numbers))

                search = Search(units, folder / f"wall-{turn}-{workers}", THRESHOLD, partitions=8)
                begun = time.perf_counter()
                find_duplicates(search, run)
                spent = time.perf_counter() - begun
                wall[workers] = min(wall.get(workers, 1e9), spent)
    print(
        f"minhash: wall time at 8 partitions, 1 worker {wall[1]:.2f} s, 2 workers {wall[2]:.2f} s"
        f" ({wall[1] / wall[2]:.2f}x)"
    )


def recall(folder: Path) -> None:
    """Print recall by similarity with its 95 % interval, and the precision over all pairs."""
    generator = np.random.default_rng(29)
    pairs = [planted.pair(generator, s) for s in (*SIMILARITIES, DECOY) for _ in range(PAIRS)]
    parts = planted.write_units(folder, [[a for a, _ in pairs], [b for _, b in pairs]])
    found = planted.dropped(Search(parts, folder.with_name("recalled"), THRESHOLD))
    hit = np.asarray([found.get(len(pairs) + row) == row for row in range(len(pairs))])
    for similarity, hits in zip(SIMILARITIES, hit.reshape(-1, PAIRS), strict=False):
        curve = 1 - (1 - similarity**dedup.HASHES_PER_BAND) ** dedup.BANDS
        low, high = wilson(int(hits.sum()), PAIRS)
        print(
            f"minhash: s = {similarity}: recall {hits.mean():.4f} [{low:.4f}, {high:.4f}],"
            f" LSH curve {curve:.4f}"
        )
    true = sum(dedup.jaccard(*pairs[row]) >= THRESHOLD for row in np.flatnonzero(hit))
    print(f"minhash: precision {true / len(found):.4f} over {len(found)} dropped")


def main() -> None:
    documents = texts(UNITS * DOCUMENTS)
    signer = dedup._signer("en")
    stock = type(signer)(".", signer.config, "eng")

    def stock_signatures() -> float:
        for text in documents[:200]:
            stock.get_signature(stock.get_shingles(text))
        return 200.0

    def our_signatures() -> float:
        for text in documents[:200]:
            dedup.signature(dedup.shingles(text, "en"))
        return 200.0

    for text in documents[:50]:
        expected = stock.get_signature(stock.get_shingles(text))
        if dedup.signature(dedup.shingles(text, "en")).tolist() != expected:
            raise SystemExit(f"a signature differs from stock datatrove's for: {text[:200]!r}")
    with tempfile.TemporaryDirectory() as folder:
        search_times(write_units(Path(folder) / "units", documents), Path(folder))
        recall(Path(folder) / "planted")
    compare("minhash", our_signatures, stock_signatures, "documents/CPU-s", rounds=5, rate=cpu_rate)


if __name__ == "__main__":
    main()
