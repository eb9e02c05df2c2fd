"""The optional search for repeated spans, in steps like those of `duplicates`.

* `windows`: one part's windows: (hash, place), by hash, of the documents that stay;
* `repeats`: one range of hashes: the places that an earlier place equals.

A window is eight bytes of hash and eight of place for every word of the corpus: half as much again
as the text, while the stage runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stages.corpus.duplicates import (
    KEYS_AT_ONCE,
    RunTasks,
    Search,
    dropped_between,
    rows_between,
    take,
)
from stages.text import spans
from stages.text.documents import read_file


def find_repeats(search: Search, gone: Sequence[Path], words: int, run: RunTasks) -> list[Path]:
    """Take the steps that are not taken yet; the files of `repeats`."""
    task = partial(merge_windows, gone=list(gone), words=words)
    take(search, run, "windows", task, len(search.parts))
    size = sum(path.stat().st_size for path in search.files("windows"))
    ranges = search.partitions or max(1, -(-size // (16 * KEYS_AT_ONCE)))
    take(search, run, "repeats", partial(mark, ranges=ranges), ranges)
    return search.files("repeats")


def merge_windows(search: Search, part: int, gone: Sequence[Path], words: int) -> np.ndarray:
    """uint64 [2, windows] of one part."""
    first, last = int(search.starts[part]), int(search.starts[part + 1])
    dropped = dropped_between(gone, first, last)
    hashes, places = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.uint64)]
    for row, document in enumerate(read_file(search.parts[part].documents)):
        if first + row in dropped:
            continue
        found = spans.window_hashes(document.text, words)
        start = (first + row) << spans.PLACE_BITS
        hashes.append(found)
        places.append(np.arange(start, start + len(found), dtype=np.uint64))
    keys = np.concatenate(hashes)
    order = np.argsort(keys, kind="stable")
    return np.stack([keys[order], np.concatenate(places)[order]])


def mark(search: Search, number: int, ranges: int) -> np.ndarray:
    """int64 [1, places] whose window an earlier place has."""
    low, high = (((n << 64) // ranges) for n in (number, number + 1))
    hashes, places = rows_between(search.files("windows"), low, high, np.uint64)
    return spans.repeated(hashes, places).astype(np.int64)[None]


def repeats_between(files: Sequence[Path], first: int, last: int) -> dict[int, list[int]]:
    """Document -> first words of its repeated windows, of the documents [first, last)."""
    bits = spans.PLACE_BITS
    found: dict[int, list[int]] = {}
    for place in rows_between(files, first << bits, last << bits, columns=1)[0].tolist():
        found.setdefault(place >> bits, []).append(place & ((1 << bits) - 1))
    return found
