"""The folder of a unit: written in pieces of bounded size, committed by a rename, read by row.

* `documents.parquet`: what was kept, with the columns of a corpus;
* `outcomes.parquet`: one row for every record read: where it was, its size, and the step and reason
  that dropped it (step "kept" if none did): the ledger is a sum over these rows;
* `keys.u64`: the exact key and the band keys of each kept document;
* `shingles.u64`, `shingle_ends.npy`: each kept document's shingle set;
* `dropped.jsonl`, `quarantine.jsonl`: samples of what was dropped, everything that was broken;
* `counts.json`: what was masked, and how many documents were searched for the evaluation's text;
* `took.json`: the CPU-seconds that all this took.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.text import dedup
from stages.text.arrays import save_array, write_array
from stages.text.documents import ROW_GROUP, Document, DocumentWriter

OUTCOMES = pa.schema(
    [
        ("offset", pa.int64()),
        ("url", pa.string()),
        ("id", pa.string()),
        ("bytes", pa.int64()),
        ("language", pa.string()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("masked", pa.int64()),
    ]
)
SAMPLE_CHARS = 600


@dataclass
class Outcome:
    """What became of one record."""

    offset: int
    url: str
    bytes: int
    id: str = ""
    language: str = ""
    step: str = "kept"
    reason: str = ""
    masked: int = 0
    text: str = ""
    detail: str = ""
    passed: str = ""
    """The steps that let it pass, in order, separated by spaces."""


class UnitWriter:
    """Takes a unit's records one by one; what it holds in memory does not grow with the unit."""

    def __init__(self, folder: Path, samples: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.samples = samples
        self.masked: Counter[str] = Counter()
        self.searched = 0
        self.bytes = 0
        self._place, self._ids = -1, set[str]()
        self._taken: Counter[tuple[str, str]] = Counter()
        self._outcomes: list[dict[str, Any]] = []
        self._ends = array("q", [0])
        self._documents = DocumentWriter(folder / "documents.parquet")
        self._table = pq.ParquetWriter(folder / "outcomes.parquet", OUTCOMES, compression="zstd")
        self._keys: IO[bytes] = (folder / "keys.u64").open("wb")
        self._shingles: IO[bytes] = (folder / "shingles.u64").open("wb")
        self._dropped = _text_file(folder / "dropped.jsonl")
        self._quarantine = _text_file(folder / "quarantine.jsonl")

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        self._documents.close()
        self._table.close()
        for file in (self._keys, self._shingles, self._dropped, self._quarantine):
            file.close()
        save_array(self.folder / "shingle_ends.npy", np.frombuffer(self._ends, dtype=np.int64))
        counts = {"masked": dict(sorted(self.masked.items())), "documents": self.searched}
        (self.folder / "counts.json").write_text(json.dumps(counts, sort_keys=True))

    def is_new(self, offset: int, document_id: str) -> bool:
        """Whether no document at this place has the id yet: a broken archive may have two records
        at one place.
        """
        if offset != self._place:
            self._place, self._ids = offset, set()
        new = document_id not in self._ids
        self._ids.add(document_id)
        return new

    def keep(self, document: Document, shingle_set: np.ndarray) -> None:
        """A document that every step let pass; its outcome is added by itself."""
        keys = dedup.document_keys(document.text, shingle_set)
        self._documents.add(document)
        write_array(self._keys, keys)
        write_array(self._shingles, shingle_set)
        self._ends.append(self._ends[-1] + len(shingle_set))

    def add(self, outcome: Outcome) -> None:
        """A record's fate."""
        self.bytes += outcome.bytes
        self._outcomes.append({name: getattr(outcome, name) for name in OUTCOMES.names})
        if len(self._outcomes) == ROW_GROUP:
            self._flush()
        place = {"url": outcome.url, "offset": outcome.offset, "bytes": outcome.bytes,
                 "reason": outcome.reason}  # fmt: skip
        reason = (outcome.step, outcome.reason)
        if outcome.step == "quarantine":
            _write_line(self._quarantine, place | {"detail": outcome.detail})
        elif outcome.step != "kept" and self._taken[reason] < self.samples:
            self._taken[reason] += 1
            sample = {"step": outcome.step, "language": outcome.language,
                      "text": outcome.text[:SAMPLE_CHARS]}  # fmt: skip
            _write_line(self._dropped, place | sample)

    def _flush(self) -> None:
        if self._outcomes:
            self._table.write_table(pa.Table.from_pylist(self._outcomes, OUTCOMES))
            self._outcomes.clear()


def _text_file(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="replace", newline="\n")


def _write_line(file: IO[str], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _numbers(path: Path) -> np.ndarray:
    """A file of uint64, mapped; an empty one cannot be. A plain array: numpy's own class for mapped
    files takes ten times as long to cut a row out.
    """
    if path.stat().st_size == 0:
        return np.empty(0, dtype=np.uint64)
    return np.asarray(np.memmap(path, dtype=np.uint64, mode="r"))


class CommittedUnit:
    """A unit's keys and shingles by row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents = folder / "documents.parquet"

    def opened(self) -> CommittedUnit:
        """Another view of it, whose files are mapped for as long as it lives."""
        return CommittedUnit(self.folder)

    @property
    def rows(self) -> int:
        return (self.folder / "keys.u64").stat().st_size // (8 * dedup.KEYS)

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64 [rows, KEYS]."""
        return _numbers(self.folder / "keys.u64").reshape(-1, dedup.KEYS)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.asarray(np.load(self.folder / "shingle_ends.npy", mmap_mode="r"))

    @cached_property
    def _values(self) -> np.ndarray:
        return _numbers(self.folder / "shingles.u64")

    def shingles(self, row: int) -> np.ndarray:
        return np.asarray(self._values[self._ends[row] : self._ends[row + 1]])


class PublishedFile:
    """One file of a published corpus: its keys are stored, shingles are made again when asked."""

    def __init__(self, documents: Path) -> None:
        self.documents = documents
        name = documents.name.replace("documents-", "signatures-", 1)
        self.signatures = documents.with_name(name).with_suffix(".npy")

    def opened(self) -> PublishedFile:
        """Another view of it, whose files are open for as long as it lives."""
        return PublishedFile(self.documents)

    def comparable(self) -> bool:
        """Whether it keeps the keys that this version compares."""
        if not self.signatures.exists():
            return False
        return np.load(self.signatures, mmap_mode="r").shape[1:] == (dedup.KEYS,)

    @property
    def rows(self) -> int:
        return len(np.load(self.signatures, mmap_mode="r"))

    @cached_property
    def keys(self) -> np.ndarray:
        """uint64 [rows, KEYS]."""
        return np.load(self.signatures, mmap_mode="r")

    @cached_property
    def _table(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.documents)

    def shingles(self, row: int) -> np.ndarray:
        group, within = divmod(row, ROW_GROUP)
        found = self._table.read_row_group(group, columns=["text", "language"]).slice(within, 1)
        return dedup.shingles(found["text"][0].as_py(), found["language"][0].as_py())
