"""MinHash signatures per CPU-second: ours against stock datatrove's first stage, the same numbers,
over documents of words drawn from a Zipf distribution.

Before that the search for duplicates, over 48,000 sets of shingles, pairs of known Jaccard
similarity and as many decoys at 0.6: recall by similarity beside the LSH curve, precision,
CPU-seconds in all when it is cut into 1, 2, 4 and 8 partitions, wall time with 1 and 2 workers.
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
from stages.corpus.unit_files import CommittedUnit
from stages.text import dedup
from stages.tune.intervals import wilson
from tests.bench.harness import compare, cpu_rate
from tests.stages.corpus import planted

DOCUMENTS, WORDS = 250, 400
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
    print(f"minhash: {len(answers[0])} dropped each time; CPU by partitions {shown}")
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


def planted_pairs() -> list[planted.Sets]:
    generator = np.random.default_rng(29)
    return [planted.pair(generator, s) for s in (*SIMILARITIES, DECOY) for _ in range(PAIRS)]


def write_pairs(folder: Path, pairs: Sequence[planted.Sets]) -> list[CommittedUnit]:
    """As eight units: the pairs' first sets, then in the same order their second ones."""
    quarter = len(pairs) // 4
    parts = [pairs[at : at + quarter] for at in range(0, len(pairs), quarter)]
    units = [[pair[side] for pair in part] for side in (0, 1) for part in parts]
    return planted.write_units(folder, units)


def show_recall(pairs: Sequence[planted.Sets], search: Search) -> None:
    """Print recall by similarity with its 95 % interval, and the precision over all pairs."""
    found = planted.dropped(search)
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
    documents = texts(DOCUMENTS)
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
    with tempfile.TemporaryDirectory() as name:
        folder, pairs = Path(name), planted_pairs()
        units = write_pairs(folder / "units", pairs)
        show_recall(pairs, Search(units, folder / "recalled", THRESHOLD))
        search_times(units, folder)
    compare("minhash", our_signatures, stock_signatures, "documents/CPU-s", rounds=5, rate=cpu_rate)


if __name__ == "__main__":
    main()
