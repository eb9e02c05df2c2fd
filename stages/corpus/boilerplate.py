"""Finds every host's boilerplate over all units, before the units are judged.

One worker counts the lines of one unit and commits the counts; they are added up a sixteenth of the
keys at a time, so no process holds them all. Only runs when `boilerplate_pages` asks for it: it
reads and extracts everything once more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.took import TOOK, Clock
from stages.corpus.settings import Settings
from stages.corpus.sources import Job
from stages.text.arrays import save_array
from stages.text.boilerplate import line_keys
from stages.text.readers import read_unit
from stages.text.records import Page

_PARTITIONS = 16


class LineCounter:
    """Counts on how many pages of its host each line of a unit stands; commits `<unit>.npy`, rows
    of (key, pages) sorted by key.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        from stages.corpus.unit import UnitWorker  # heavy: only where the work is done

        self._worker = UnitWorker(settings, folder)
        self._folder = folder

    def __call__(self, job: Job) -> str:
        final, clock = self._folder / f"{job.folder}.npy", Clock()
        counted: Counter[int] = Counter()
        for record in read_unit(job.unit, self._worker.settings.max_page_bytes):
            if isinstance(record, Page) and record.url:
                counted.update(set(line_keys(record.url, self._text(record, job))) - {0})
        rows = np.asarray(sorted(counted.items()), dtype=np.uint64).reshape(-1, 2)
        temporary = final.with_name(f"{final.name}.part-{os.getpid()}")
        save_array(temporary, rows)
        clock.write(final.with_suffix(f".{TOOK}"), scratch_bytes=rows.nbytes)
        temporary.rename(final)
        return final.name

    def _text(self, page: Page, job: Job) -> str:
        try:
            return self._worker.text_of(page, job)
        except Exception:  # the same page is quarantined with its reason when its unit is judged
            return ""


def repeated_lines(counts: Sequence[Path], pages: int, out: Path) -> Path:
    """Write the sorted keys of all lines on at least `pages` pages of their host."""
    parts = []
    for partition in range(_PARTITIONS):
        rows = [_slice(np.load(path, mmap_mode="r"), partition) for path in counts]
        keys, place = np.unique(np.concatenate([r[:, 0] for r in rows]), return_inverse=True)
        totals = np.bincount(
            place, np.concatenate([r[:, 1] for r in rows]).astype(np.float64), keys.size
        )
        parts.append(keys[totals >= pages])
    temporary = out.with_name(f"{out.name}.part")
    save_array(temporary, np.concatenate(parts))
    temporary.rename(out)
    return out


def _slice(rows: np.ndarray, partition: int) -> np.ndarray:
    """The rows whose keys begin with these four bits."""
    first, last = (
        rows.shape[0]
        if end == _PARTITIONS
        else int(np.searchsorted(rows[:, 0], np.uint64(end << 60)))
        for end in (partition, partition + 1)
    )
    return np.asarray(rows[first:last])
