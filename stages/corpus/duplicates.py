"""Duplicates over all committed units: one partition of the keys at a time, then components.

A document is named by its number: its row, counted through the units in crawl order. A partition
reads its slice of every unit's keys and the shingles of the documents that share one, nothing else,
so partitions run anywhere, in any order, and their edges are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stages.corpus.unit import PARTITIONS
from stages.text import dedup


class Units:
    """The committed units' keys and shingles, memory-mapped, by document number."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        counts = [len(np.load(f / "shingle_ends.npy", mmap_mode="r")) - 1 for f in folders]
        self.starts = np.cumsum([0, *counts])
        self._open = lru_cache(maxsize=64)(self._load)

    def _load(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        folder = self.folders[unit]
        return np.load(folder / "shingles.npy", mmap_mode="r"), np.load(folder / "shingle_ends.npy")

    def locate(self, number: int) -> tuple[int, int]:
        """(unit, row) of a document."""
        unit = int(np.searchsorted(self.starts, number, side="right")) - 1
        return unit, number - int(self.starts[unit])

    def shingles(self, number: int) -> np.ndarray:
        unit, row = self.locate(number)
        values, ends = self._open(unit)
        return np.asarray(values[ends[row] : ends[row + 1]])

    def keys(self, partition: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys, document numbers) of one partition, in crawl order."""
        keys, numbers = [], []
        for unit, folder in enumerate(self.folders):
            ends = np.load(folder / "key_ends.npy")
            rows = np.load(folder / "keys.npy", mmap_mode="r")
            part = rows[int(ends[partition - 1]) if partition else 0 : int(ends[partition])]
            keys.append(np.asarray(part[:, 0]))
            numbers.append(part[:, 1].astype(np.int64) + self.starts[unit])
        return np.concatenate(keys), np.concatenate(numbers)


class PartitionWorker:
    """Finds and verifies the edges of one partition; commits them as `edges-<partition>.npy`."""

    def __init__(self, folders: Sequence[Path], out: Path, threshold: float) -> None:
        self.units = Units(folders)
        self.out = out
        self.threshold = threshold

    def __call__(self, partition: int) -> str:
        keys, numbers = self.units.keys(partition)
        shingles_of = lru_cache(maxsize=4096)(self.units.shingles)
        seen: set[tuple[int, int]] = set()
        edges: list[tuple[int, int]] = []
        for bucket in dedup.buckets(keys):
            edges += dedup.verified_edges(
                numbers[bucket].tolist(), shingles_of, self.threshold, seen
            )
        path = self.out / f"edges-{partition:03d}.npy"
        temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
        with temporary.open("wb") as file:
            np.save(file, np.asarray(sorted(set(edges)), dtype=np.int64).reshape(-1, 2))
        temporary.rename(path)
        return path.name


def survivors_of(out: Path) -> dict[int, int]:
    """Document -> the first document of its component, for every document that has a duplicate."""
    edges = [np.load(out / f"edges-{partition:03d}.npy") for partition in range(PARTITIONS)]
    return dedup.components((int(a), int(b)) for part in edges for a, b in part.tolist())


def duplicate_reasons(units: Units, survivor: dict[int, int]) -> dict[int, str]:
    """Dropped document -> "exact" if its text has the survivor's key, else "near"."""
    wanted = sorted(set(survivor) | set(survivor.values()))
    keys: dict[int, int] = {}
    for unit in sorted({units.locate(number)[0] for number in wanted}):
        table = pq.read_table(units.folders[unit] / "documents.parquet", columns=["text"])
        for number in wanted:
            at, row = units.locate(number)
            if at == unit:
                keys[number] = dedup.exact_key(table["text"][row].as_py())
    return {
        number: "exact" if keys[number] == keys[first] else "near"
        for number, first in survivor.items()
        if number != first
    }
