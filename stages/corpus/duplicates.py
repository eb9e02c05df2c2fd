"""Duplicates over all committed units and published corpora, as steps that any worker may take.

A document is named by its number: its row, counted through the parts (published files first, then
the units in crawl order). The steps, each with its files under `out`:

* `keys`: a group of parts' keys with their documents' numbers, sorted;
* `edges`: one range of keys from every group; what shares a key is compared, see `text.dedup`;
* `large-N`, `small-N`: rounds of `text.components`, one range of document numbers at a time;
* `labelled`: every edge with the smallest document of its component;
* `gone`: one range of components: (dropped, what stays for it, whether their texts are the same).

A step's task reads its own range from the files of the step before, writes one file and renames it
into place: tasks run anywhere, in any order, and again after a kill. No task sees the whole.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from cluster.took import TOOK, Clock
from stages.corpus.unit_files import CommittedUnit, PublishedFile
from stages.text import components, dedup
from stages.text.arrays import save_array

Part = CommittedUnit | PublishedFile
Task = Callable[[int], str]
RunTasks = Callable[[Callable[[], Task], Sequence[int]], None]
"""Runs the made task on every number, somewhere, and returns when all are done."""

KEYS_AT_ONCE = 1 << 22
"""What one task sorts: 4 million keys are 64 MiB, and a few times that while they are sorted."""
ROUNDS = 64  # O(log^2 n) suffice


@dataclass(frozen=True)
class Search:
    """What to search for duplicates, and where its files lie."""

    parts: Sequence[Part]
    out: Path
    threshold: float
    published: int = 0
    """How many of the parts, the first ones, are published and stay whatever they resemble."""
    partitions: int | None = None
    """Ranges of keys; by the number of keys if not given."""

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of each part's first document, and of all at the end."""
        path = self.out / "starts.npy"
        if not path.exists():
            counts = [part.rows for part in self.parts]
            _save(path, np.cumsum([0, *counts]).astype(np.int64))
        return np.load(path)

    @cached_property
    def groups(self) -> list[range]:
        """Parts that are sorted together: as many as one task may hold."""
        found, first = [], 0
        for part in range(len(self.parts)):
            if (self.starts[part + 1] - self.starts[first]) * dedup.KEYS > KEYS_AT_ONCE:
                found.append(range(first, max(part, first + 1)))
                first = found[-1].stop
        return [*found, range(first, len(self.parts))] if first < len(self.parts) else found

    @property
    def key_ranges(self) -> int:
        keys = int(self.starts[-1]) * dedup.KEYS
        return self.partitions or max(1, -(-keys // KEYS_AT_ONCE))

    @property
    def settled(self) -> int:
        """The number of the first document that may go."""
        return int(self.starts[self.published])

    def files(self, step: str) -> list[Path]:
        return sorted((self.out / step).glob("*.npy"))

    @property
    def node_ranges(self) -> int:
        """Ranges of documents for the graph's steps: by the size of the edges' files."""
        edges = sum(path.stat().st_size for path in self.files("edges")) // 32
        return self.partitions or max(1, -(-edges // KEYS_AT_ONCE))

    def nodes(self, number: int) -> tuple[int, int]:
        """The documents [low, high) of a range."""
        total, ranges = int(self.starts[-1]), self.node_ranges
        return total * number // ranges, total * (number + 1) // ranges

    @cached_property
    def _opened(self) -> Callable[[int], Part]:
        """A part with its files mapped; only so many at a time."""
        return lru_cache(maxsize=256)(lambda part: self.parts[part].opened())

    def __reduce__(self) -> tuple[type[Search], tuple[object, ...]]:
        """What was read stays here; whoever gets a copy maps the files for itself."""
        return Search, (self.parts, self.out, self.threshold, self.published, self.partitions)

    def keys(self, part: int) -> np.ndarray:
        """uint64 [rows, KEYS]."""
        return self._opened(part).keys

    def locate(self, document: int) -> tuple[int, int]:
        """(part, row) of a document."""
        part = int(np.searchsorted(self.starts, document, side="right")) - 1
        return part, document - int(self.starts[part])

    def shingles(self, document: int) -> np.ndarray:
        part, row = self.locate(document)
        return self._opened(part).shingles(row)

    def exact_key(self, document: int) -> int:
        part, row = self.locate(document)
        return int(self.keys(part)[row, 0])


def find_duplicates(search: Search, run: RunTasks) -> list[Path]:
    """Take all steps that are not taken yet; the files of `gone`."""
    search.out.mkdir(parents=True, exist_ok=True)
    take(search, run, "keys", merge_keys, len(search.groups))
    take(search, run, "edges", find_edges, search.key_ranges)
    label_components(search, run)
    take(search, run, "gone", choose, search.node_ranges)
    return search.files("gone")


def label_components(search: Search, run: RunTasks) -> list[Path]:
    """From the edges, rounds of stars until nothing changes; the files of `labelled`."""
    before, ranges = "edges", search.node_ranges
    digests: list[str] = []
    for number in range(ROUNDS):
        take(search, run, f"large-{number:02d}", partial(grow, before=before), ranges)
        before = f"small-{number:02d}"
        take(search, run, before, partial(shrink, before=f"large-{number:02d}"), ranges)
        found = [_digest(path) for path in search.files(before)]
        if found == digests:
            break
        digests = found
    take(search, run, "labelled", partial(label, stars=before), ranges)
    return search.files("labelled")


def dropped_between(files: Iterable[Path], low: int, high: int) -> dict[int, tuple[int, str]]:
    """Dropped document -> (what stays for it, "exact" or "near"), of the documents [low, high)."""
    rows = rows_between(files, low, high, columns=3)
    return {
        int(document): (int(kept), "exact" if same else "near")
        for document, kept, same in rows.T.tolist()
    }


def merge_keys(search: Search, group: int) -> np.ndarray:
    """uint64 [2, keys]: keys and document numbers of a group of parts, by key."""
    parts = search.groups[group]
    keys = np.concatenate([search.keys(part) for part in parts]).ravel()
    low, high = search.starts[parts.start], search.starts[parts.stop]
    numbers = np.repeat(np.arange(low, high, dtype=np.uint64), dedup.KEYS)
    order = np.argsort(keys, kind="stable")
    return np.stack([keys[order], numbers[order]])


def find_edges(search: Search, number: int) -> np.ndarray:
    """int64 [2, edges] of near duplicates, each both ways, from one range of keys."""
    low, high = (((n << 64) // search.key_ranges) for n in (number, number + 1))
    found = rows_between(search.files("keys"), low, high, np.uint64)
    documents = found[1].astype(np.int64)
    shingles_of = lru_cache(maxsize=4096)(search.shingles)
    edges = array("q")  # an eighth of what pairs in a list would take
    for bucket in dedup.buckets(found[0]):
        for edge in dedup.verified_edges(
            documents[bucket].tolist(), shingles_of, search.threshold, search.settled
        ):
            edges.extend(edge)
    return components.both_ways(np.asarray(edges, dtype=np.int64).reshape(-1, 2).T)


def grow(search: Search, number: int, before: str) -> np.ndarray:
    """One range of a large-star step."""
    edges = components.sorted_edges(rows_between(search.files(before), *search.nodes(number)))
    return components.large_star(edges)


def shrink(search: Search, number: int, before: str) -> np.ndarray:
    """One range of a small-star step."""
    edges = components.sorted_edges(rows_between(search.files(before), *search.nodes(number)))
    return components.both_ways(components.small_star(edges))


def label(search: Search, number: int, stars: str) -> np.ndarray:
    """int64 [3, edges]: (smallest document of the component, smaller end, larger end)."""
    low, high = search.nodes(number)
    edges = components.sorted_edges(rows_between(search.files("edges"), low, high))
    edges = edges[:, edges[0] < edges[1]]
    links = components.sorted_edges(rows_between(search.files(stars), low, high))
    links = links[:, links[1] < links[0]]
    roots = edges[0].copy()
    if links.shape[1]:
        at = np.minimum(np.searchsorted(links[0], edges[0]), links.shape[1] - 1)
        known = links[0, at] == edges[0]
        roots[known] = links[1, at[known]]
    labelled = np.concatenate([roots[None], edges])
    return np.ascontiguousarray(labelled[:, np.argsort(roots, kind="stable")])


def choose(search: Search, number: int) -> np.ndarray:
    """int64 [3, dropped]: (document, what stays for it, 1 if their simplified texts are equal)."""
    found = rows_between(search.files("labelled"), *search.nodes(number), columns=3)
    shingles_of = lru_cache(maxsize=4096)(search.shingles)

    def similar(a: int, b: int) -> bool:
        return dedup.jaccard(shingles_of(a), shingles_of(b)) >= search.threshold

    kept_for = dedup.survivors(found[1:].T.tolist(), similar, search.settled)
    rows = [
        (document, kept, int(search.exact_key(document) == search.exact_key(kept)))
        for document, kept in sorted(kept_for.items())
    ]
    return np.asarray(rows, dtype=np.int64).reshape(-1, 3).T


def take(
    search: Search,
    run: RunTasks,
    step: str,
    task: Callable[[Search, int], np.ndarray],
    count: int,
) -> None:
    """Run the tasks of a step whose files are not there yet."""
    folder = search.out / step
    folder.mkdir(exist_ok=True)
    waiting = [n for n in range(count) if not (folder / f"{n:06d}.npy").exists()]
    run(partial(_Committing, task, search, folder), waiting)


class _Committing:
    """A task whose result becomes a file, in one step."""

    def __init__(
        self, task: Callable[[Search, int], np.ndarray], search: Search, folder: Path
    ) -> None:
        self.task, self.search, self.folder = task, search, folder

    def __call__(self, number: int) -> str:
        path, clock = self.folder / f"{number:06d}.npy", Clock()
        rows = self.task(self.search, number)
        clock.write(path.with_suffix(f".{TOOK}"), scratch_bytes=rows.nbytes)
        _save(path, rows)
        return path.name


def _save(path: Path, rows: np.ndarray) -> None:
    temporary = path.with_name(f"{path.stem}.part-{os.getpid()}")
    save_array(temporary, rows)
    temporary.rename(path)


def rows_between(
    files: Iterable[Path],
    low: int,
    high: int,
    dtype: type[np.generic] = np.int64,
    columns: int = 2,
) -> np.ndarray:
    """[columns, rows] of all files whose first column is in [low, high); they are sorted by it."""
    found = list(_slices(files, low, high, dtype))
    return np.concatenate([np.empty((columns, 0), dtype=dtype), *found], axis=1)


def _slices(
    files: Iterable[Path], low: int, high: int, dtype: type[np.generic]
) -> Iterator[np.ndarray]:
    for path in files:
        rows = np.load(path, mmap_mode="r")
        if rows.shape[1] == 0:
            continue
        first = int(np.searchsorted(rows[0], dtype(low)))
        last = rows.shape[1]
        if high < 1 << 64:  # the end of the last range of keys, which no key reaches
            last = int(np.searchsorted(rows[0], dtype(high)))
        if last > first:
            yield np.asarray(rows[:, first:last])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
