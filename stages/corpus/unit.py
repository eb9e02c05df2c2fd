"""One unit through all steps that look at one document at a time, committed by a rename.

The folder of a committed unit holds

* `documents.parquet`: what was kept, with the columns of a corpus;
* `outcomes.parquet`: one row for every record read: where it was, its size, and the step and reason
  that dropped it (step "kept" if none did): the ledger is a sum over these rows;
* `keys.npy`, `key_ends.npy`: (band key, row) pairs sorted by the partition that the key falls in;
* `shingles.npy`, `shingle_ends.npy`: each kept document's shingle set;
* `dropped.jsonl`, `quarantine.jsonl`: samples of what was dropped, everything that was broken.

It is a function of the unit and the settings: a unit that is done again gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.corpus.screen import Screen, ScreenSettings
from stages.corpus.source import Extractor
from stages.corpus.sources import Job
from stages.text import boilerplate, charset, dedup, extraction
from stages.text.decontamination import Decontaminator
from stages.text.documents import Document, write_documents
from stages.text.quality import Overrides, QualityFilters
from stages.text.readers import read_unit
from stages.text.records import Damaged, Page, Record, Skipped

PARTITIONS = 16
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
_SAMPLE_CHARS = 600


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know besides its unit."""

    languages: Sequence[str]
    language_threshold: float
    quality: dict[str, Overrides]
    mask_personal_data: bool
    max_page_bytes: int
    samples_per_reason: int
    evaluation: Sequence[str] = ()
    training: Sequence[str] = ()
    extractor: Extractor = "resiliparse"
    screen: ScreenSettings = field(default_factory=ScreenSettings)
    boilerplate: Path | None = None
    """Sorted keys of the lines to leave out (stages.text.boilerplate)."""


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


@dataclass
class _Collected:
    ids: set[str] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    shingles: list[np.ndarray] = field(default_factory=list)
    masked: Counter[str] = field(default_factory=Counter)
    searched: Counter[str] = field(default_factory=Counter)


def document_id(unit_key: str, offset: int, url: str) -> str:
    """128 bits in hex of where the record lies: the same on every machine."""
    place = f"{unit_key}\0{offset}\0{url}".encode("utf-8", "replace")
    return hashlib.blake2b(place, digest_size=16).hexdigest()


class UnitWorker:
    """Holds the models and filters, and takes unit after unit."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.filters = QualityFilters(settings.quality)
        self.decontaminator = Decontaminator(settings.evaluation, settings.training)
        self.screen = Screen(settings.screen, settings.languages, settings.language_threshold)
        file = settings.boilerplate
        self.boilerplate = np.load(file, mmap_mode="r") if file is not None else None

    def __call__(self, job: Job) -> str:
        """Read, judge and commit one unit; returns the name of its folder."""
        collected = _Collected()
        for record in read_unit(job.unit, self.settings.max_page_bytes):
            outcome = self._judge(record, job, collected)
            collected.outcomes.append(outcome)
        temporary = self.folder / f"{job.folder}.part-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(collected, temporary, self.settings.samples_per_reason)
        final = self.folder / job.folder
        if not final.exists():
            temporary.rename(final)
        shutil.rmtree(temporary, ignore_errors=True)
        return job.folder

    def _judge(self, record: Record, job: Job, collected: _Collected) -> Outcome:
        outcome = Outcome(record.offset, record.url, record.size)
        if isinstance(record, Skipped):
            outcome.step, outcome.reason = "read", record.reason
        elif isinstance(record, Damaged):
            outcome.step, outcome.reason, outcome.detail = (
                "quarantine",
                record.reason,
                record.detail,
            )
        else:
            try:
                self._steps(record, job, outcome, collected)
            except Exception as error:  # a page that breaks a library must not stop the run
                outcome.step = "quarantine"
                outcome.reason = getattr(error, "reason", f"error_{type(error).__name__}")
                outcome.detail = str(error)[:500]
        return outcome

    def text_of(self, page: Page, job: Job) -> str:
        """The page's main text, tidied; "" if there is none."""
        text = page.text if page.text is not None else charset.decode(page.body, page.charset)[0]
        if page.media_type == "text/html":
            text = extraction.extract_main_text(text, job.extractor or self.settings.extractor)
        return extraction.tidy(text)

    def _steps(self, page: Page, job: Job, outcome: Outcome, collected: _Collected) -> None:
        """The steps in order; each that refuses sets `step` and `reason` and ends the
        page's way.
        """
        blocked = self.screen.address(page.url)
        if blocked:
            outcome.step, outcome.reason = "blocklist", blocked
            return
        text = outcome.text = self.text_of(page, job)
        if self.boilerplate is not None:
            text = boilerplate.without(page.url, text, self.boilerplate)
        if not text:
            outcome.step = "boilerplate" if outcome.text else "extraction"
            outcome.reason = "no_text"
            return
        told = self.screen.language(text, job.unit.language or page.language)
        outcome.language = told.language
        if not told.accepted:
            outcome.step, outcome.reason = "language", told.language
            return
        said = self.screen.words(text, outcome.language)
        if said:
            outcome.step, outcome.reason = "word_list", said
            return
        verdict = self.filters.verdict(text, outcome.language, job.profile)
        if not verdict.kept:
            outcome.step, outcome.reason = verdict.filter, verdict.reason
            return
        collected.searched["documents"] += 1
        hit = self.decontaminator.find(verdict.text)
        if hit is not None:
            outcome.step, outcome.reason = "decontamination", hit.how
            return
        held = self.screen.personal(verdict.text, outcome.language)
        if held and self.settings.mask_personal_data:
            outcome.step, outcome.reason = "personal_data", held
            return
        self._keep(page, job, verdict.text, outcome, collected)

    def _keep(
        self, page: Page, job: Job, text: str, outcome: Outcome, collected: _Collected
    ) -> None:
        if self.settings.mask_personal_data:
            text, kinds = self.screen.mask(text, outcome.language)
            outcome.masked = kinds.total()
            collected.masked += kinds
        found = dedup.shingles(text, outcome.language)
        outcome.id = document_id(job.unit.key, page.offset, page.url)
        while outcome.id in collected.ids:  # two records that a broken archive has at one place
            outcome.id = document_id(job.unit.key, page.offset, outcome.id)
        collected.ids.add(outcome.id)
        collected.shingles.append(found)
        collected.documents.append(
            Document(outcome.id, text, page.url, job.unit.key, outcome.language, "", page.offset)
        )


def _write(collected: _Collected, folder: Path, samples: int) -> None:
    write_documents(collected.documents, folder / "documents.parquet")
    rows = [{name: getattr(o, name) for name in OUTCOMES.names} for o in collected.outcomes]
    pq.write_table(
        pa.Table.from_pylist(rows, OUTCOMES), folder / "outcomes.parquet", compression="zstd"
    )
    _write_keys(collected, folder)
    _write_samples(collected.outcomes, folder, samples)
    counts = {"masked": dict(sorted(collected.masked.items())), **collected.searched}
    (folder / "counts.json").write_text(json.dumps(counts, sort_keys=True))


def _write_keys(collected: _Collected, folder: Path) -> None:
    pairs = [
        (key, row)
        for row, (document, found) in enumerate(
            zip(collected.documents, collected.shingles, strict=True)
        )
        for key in (dedup.exact_key(document.text), *dedup.band_keys(found))
    ]
    keys = np.asarray(pairs, dtype=np.uint64).reshape(-1, 2)
    partition = keys[:, 0] % PARTITIONS
    keys = keys[np.lexsort((keys[:, 1], keys[:, 0], partition))]
    ends = np.searchsorted(np.sort(partition), np.arange(PARTITIONS), side="right")
    sizes = [found.size for found in collected.shingles]
    np.save(folder / "keys.npy", keys)
    np.save(folder / "key_ends.npy", ends.astype(np.int64))
    np.save(folder / "shingles.npy", np.concatenate(collected.shingles or [np.empty(0, np.uint64)]))
    np.save(folder / "shingle_ends.npy", np.cumsum([0, *sizes]).astype(np.int64))


def _write_samples(outcomes: Sequence[Outcome], folder: Path, samples: int) -> None:
    taken: Counter[tuple[str, str]] = Counter()
    dropped: list[dict[str, Any]] = []
    quarantine: list[dict[str, Any]] = []
    for o in outcomes:
        place = {"url": o.url, "offset": o.offset, "bytes": o.bytes, "reason": o.reason}
        if o.step == "quarantine":
            quarantine.append(place | {"detail": o.detail})
        elif o.step != "kept" and taken[(o.step, o.reason)] < samples:
            taken[(o.step, o.reason)] += 1
            dropped.append(
                place | {"step": o.step, "language": o.language, "text": o.text[:_SAMPLE_CHARS]}
            )
    for name, rows in (("dropped.jsonl", dropped), ("quarantine.jsonl", quarantine)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text("".join(lines), encoding="utf-8", errors="replace")
