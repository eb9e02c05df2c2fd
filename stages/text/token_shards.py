"""Indexed binary token shards, and batches that are a pure function of (seed, step).

A folder holds, for each shard, `tokens-00000.bin` (little-endian uint16, or uint32 when the
vocabulary needs it), `tokens-00000.starts.npy` (int64: where each document begins in the shard) and
`tokens-00000.ids.txt` (their ids, one a line), and `index.json`, which lists them. Every document
ends with the end-of-text token. A shard holds documents of one source.

The shards are read as one long sequence cut into fixed windows; `stages.text.data_plan` says in
which order.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import UserError
from stages.text.arrays import save_array, write_array
from stages.text.data_plan import DataPlan, Source

INDEX = "index.json"
IGNORED_LABEL = -100
_ENDINGS = (".bin", ".starts.npy", ".ids.txt")


def token_dtype(vocabulary_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """What a token is stored as."""
    return np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")


class TokenWriter:
    """Appends encoded documents to shards of about `shard_tokens` tokens. Close it to write the
    index.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary_size: int,
        end_of_text: int,
        shard_tokens: int = 1 << 24,
        origin: str = "",
    ) -> None:
        """`origin` names the corpus's file that all the documents lie in, for `trace`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.vocabulary_size = vocabulary_size
        self.end_of_text = end_of_text
        self.shard_tokens = shard_tokens
        self.origin = origin
        self.dtype = token_dtype(vocabulary_size)
        self._shards: list[dict[str, Any]] = []
        self._source = ""
        self._open_shard()

    def _open_shard(self) -> None:
        self._parts: list[np.ndarray] = []
        self._starts: list[int] = []
        self._ids: list[str] = []
        self._length = 0

    def add(self, document_id: str, token_ids: Sequence[int], source: str = "") -> None:
        """Append a document; the end-of-text token is added here."""
        if source != self._source:
            self._flush()
            self._source = source
        tokens = np.empty(len(token_ids) + 1, dtype=self.dtype)
        tokens[:-1] = token_ids
        tokens[-1] = self.end_of_text
        self._starts.append(self._length)
        self._ids.append(document_id)
        self._parts.append(tokens)
        self._length += len(tokens)
        if self._length >= self.shard_tokens:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        name = f"tokens-{len(self._shards):05d}"
        with (self.folder / f"{name}.bin").open("wb") as file:
            write_array(file, np.concatenate(self._parts))
        starts = np.asarray(self._starts, dtype="<i8")
        save_array(self.folder / f"{name}.starts.npy", starts)
        (self.folder / f"{name}.ids.txt").write_text("\n".join(self._ids) + "\n", encoding="utf-8")
        self._shards.append(
            {"name": name, "source": self._source, "tokens": self._length,
             "documents": len(self._ids), "origin": self.origin}
        )  # fmt: skip
        self._open_shard()

    def close(self) -> dict[str, Any]:
        """Write what is left and `index.json`; returns the index."""
        self._flush()
        index = {
            "dtype": self.dtype.str,
            "vocabulary_size": self.vocabulary_size,
            "end_of_text": self.end_of_text,
            "tokens": sum(shard["tokens"] for shard in self._shards),
            "documents": sum(shard["documents"] for shard in self._shards),
            "shards": self._shards,
        }
        (self.folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        return index


@dataclass(frozen=True)
class TokenBatch:
    """Arrays int64 [rows, length].

    `labels` are already shifted: `labels[i, t]` is the token after `input_ids[i, t]`, or -100 where
    that token begins another document. `document_ids` number the documents over all shards; equal
    numbers may attend to each other.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    document_ids: np.ndarray


@dataclass(frozen=True)
class Place:
    """Where a token of a batch comes from: the document, the position in its tokens, and the
    corpus's file that holds it ("" where the shards do not say).
    """

    document_id: str
    token: int
    origin: str = ""


class TokenShards:
    """Read-only view of a folder of shards; memory-mapped, so opening costs nothing."""

    def __init__(self, folder: Path) -> None:
        path = folder / INDEX
        if not path.exists():
            raise UserError(f"{folder} holds no {INDEX}: it is not a folder of token shards")
        index = json.loads(path.read_text(encoding="utf-8"))
        self.folder = folder
        self.vocabulary_size: int = index["vocabulary_size"]
        self.end_of_text: int = index["end_of_text"]
        self.tokens: int = index["tokens"]
        self.documents: int = index["documents"]
        dtype = np.dtype(index["dtype"])
        self.sources = _sources(index["shards"])
        self._names: list[str] = [shard["name"] for shard in index["shards"]]
        self._origins: list[str] = [shard.get("origin", "") for shard in index["shards"]]
        self._data = [
            np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r") for name in self._names
        ]
        self._starts = [np.load(folder / f"{n}.starts.npy", mmap_mode="r") for n in self._names]
        self._shard_ends = np.cumsum([0] + [shard["tokens"] for shard in index["shards"]])
        self._known_ids: dict[int, list[str]] = {}  # the shard last traced
        self._first_document = np.cumsum([0] + [shard["documents"] for shard in index["shards"]])

    def windows(self, length: int) -> int:
        """How many samples of `length` tokens an epoch has; the last token of all has no
        successor.
        """
        count = (self.tokens - 1) // length
        if count < 1:
            raise UserError(
                f"{self.folder} holds {self.tokens} tokens, too few for a sequence of {length}:"
                " give more text, or a shorter sequence"
            )
        return count

    def span(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [start, stop) of the whole sequence and the number of each one's document."""
        tokens = np.empty(stop - start, dtype=np.int64)
        documents = np.empty(stop - start, dtype=np.int64)
        shard = int(np.searchsorted(self._shard_ends, start, side="right")) - 1
        at = start
        while at < stop:
            base, end = int(self._shard_ends[shard]), min(stop, int(self._shard_ends[shard + 1]))
            part = slice(at - start, end - start)
            tokens[part] = self._data[shard][at - base : end - base]
            position = np.arange(at - base, end - base)
            inside = np.searchsorted(self._starts[shard], position, side="right") - 1
            documents[part] = inside + self._first_document[shard]
            at, shard = end, shard + 1
        return tokens, documents

    def packed_share(self, length: int, by_source: bool = False) -> float:
        """The share of all tokens that windows of this length hold, cut by source or not."""
        windows = [source.windows(length) for source in self.sources]
        return (sum(windows) if by_source else self.windows(length)) * length / self.tokens

    def read(self, starts: Sequence[int], length: int) -> TokenBatch:
        """The windows that begin at these tokens of the whole sequence, as rows."""
        shape = (len(starts), length)
        batch = TokenBatch(*(np.empty(shape, dtype=np.int64) for _ in range(3)))
        for row, start in enumerate(starts):
            tokens, documents = self.span(start, start + length + 1)
            same = documents[1:] == documents[:-1]
            batch.input_ids[row] = tokens[:-1]
            batch.labels[row] = np.where(same, tokens[1:], IGNORED_LABEL)
            batch.document_ids[row] = documents[:-1]
        return batch

    def window_starts(self, step: int, rows: int, length: int, seed: int) -> list[int]:
        """Where each row of a step begins, where the whole folder is read epoch after epoch."""
        self.windows(length)
        plan = DataPlan.of_one(self.tokens, length, rows, seed)
        return [plan.start(step, row)[1] for row in range(rows)]

    def batch(
        self, step: int, rows: int, length: int, seed: int, rank: int = 0, world: int = 1
    ) -> TokenBatch:
        """The batch of a step of a run over the whole folder: a pure function of (seed, step,
        rows, length).

        With `world` > 1 only this `rank`'s contiguous rows are read: the ranks' parts, one after
        the other, are the batch of one rank.
        """
        starts = self.window_starts(step, rows, length, seed)
        return self.read(starts[rank * rows // world : (rank + 1) * rows // world], length)

    def locate(self, token: int) -> Place:
        """The document behind one token of the whole sequence."""
        shard = int(np.searchsorted(self._shard_ends, token, side="right")) - 1
        inside = token - int(self._shard_ends[shard])
        number = int(np.searchsorted(self._starts[shard], inside, side="right")) - 1
        within = inside - int(self._starts[shard][number])
        return Place(self._ids(shard)[number], within, self._origins[shard])

    def _ids(self, shard: int) -> list[str]:
        if shard not in self._known_ids:
            path = self.folder / f"{self._names[shard]}.ids.txt"
            self._known_ids = {shard: path.read_text(encoding="utf-8").splitlines()}
        return self._known_ids[shard]


def _sources(shards: Sequence[dict[str, Any]]) -> list[Source]:
    """Each source's place in the sequence; one named "" where the shards do not say."""
    found: list[Source] = []
    start = 0
    for shard in shards:
        name, tokens = shard.get("source", ""), shard["tokens"]
        if found and found[-1].name == name:
            found[-1] = Source(name, 0, found[-1].start, found[-1].tokens + tokens)
        else:
            found.append(Source(name, 0, start, tokens))
        start += tokens
    return found


def join_shards(folders: Sequence[Path], out: Path) -> TokenShards:
    """One folder with the shards of several: source by source in the order of their first shards,
    within a source in the folders' order; files are linked where the file system can.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = [json.loads((folder / INDEX).read_text(encoding="utf-8")) for folder in folders]
    found = [
        (folder, shard)
        for folder, part in zip(folders, parts, strict=True)
        for shard in part["shards"]
    ]
    order = {shard.get("source", ""): 0 for _, shard in found}
    order = {source: number for number, source in enumerate(order)}
    shards: list[dict[str, Any]] = []
    for folder, shard in sorted(found, key=lambda f: order[f[1].get("source", "")]):
        name = f"tokens-{len(shards):05d}"
        for ending in _ENDINGS:
            _link(folder / f"{shard['name']}{ending}", out / f"{name}{ending}")
        shards.append(shard | {"name": name})
    index = parts[0] | {
        "tokens": sum(shard["tokens"] for shard in shards),
        "documents": sum(shard["documents"] for shard in shards),
        "shards": shards,
    }
    (out / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return TokenShards(out)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
