"""Committed units whose documents are sets of shingles of chosen similarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from stages.corpus.duplicates import Search, dropped_between, find_duplicates
from stages.corpus.unit_files import CommittedUnit
from stages.text import dedup

Sets = list[np.ndarray]


def random_set(random: np.random.Generator, size: int) -> np.ndarray:
    return np.unique(random.integers(0, 2**64 - 1, size=size, dtype=np.uint64))


def pair(random: np.random.Generator, similarity: float, size: int = 150) -> Sets:
    """Two sets of `size` whose Jaccard similarity is the first one possible from `similarity` on:
    k / (2 size - k) for k in common.
    """
    common = int(np.ceil(2 * size * similarity / (1 + similarity) - 1e-9))
    pool = random_set(random, 2 * size - common)
    pool = random.permutation(pool)
    return [np.sort(pool[:size]), np.sort(np.r_[pool[:common], pool[size:]])]


def write_units(folder: Path, units: Sequence[Sets]) -> list[CommittedUnit]:
    """What dedup reads of a committed unit, and nothing else."""
    found = []
    for number, sets in enumerate(units):
        place = folder / f"{number:06d}"
        place.mkdir(parents=True)
        keys = [[xxhash.xxh3_64_intdigest(s.tobytes()), *dedup.band_keys(s)] for s in sets]
        np.asarray(keys, dtype=np.uint64).tofile(place / "keys.u64")
        np.concatenate([np.empty(0, dtype=np.uint64), *sets]).tofile(place / "shingles.u64")
        ends = np.cumsum([0, *(len(s) for s in sets)]).astype(np.int64)
        np.save(place / "shingle_ends.npy", ends)
        found.append(CommittedUnit(place))
    return found


def here(make: Callable[[], Callable[[int], str]], numbers: Sequence[int]) -> None:
    """Run the tasks of a step in this process."""
    task = make()
    for number in numbers:
        task(number)


def dropped(search: Search) -> dict[int, int]:
    """Dropped document -> what stays for it."""
    gone = find_duplicates(search, here)
    found = dropped_between(gone, 0, int(search.starts[-1]))
    return {document: kept for document, (kept, _) in found.items()}
