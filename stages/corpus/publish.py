"""From committed units to the corpus's files: whole units in crawl order, one file at a time.

A file's task reads its units and what dedup dropped of them, and commits a folder with
`documents.parquet`, `signatures.npy` (the documents' keys, for the corpora that come after) and its
part of the books. Files do not depend on each other, so any number of workers writes the same
bytes; the driver adds up what the parts say and never sees a document.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cluster.took import TOOK, Clock
from stages.corpus.duplicates import Search, dropped_between
from stages.corpus.ledger import Ledger
from stages.corpus.repeats import repeats_between
from stages.corpus.unit_files import SAMPLE_CHARS, CommittedUnit
from stages.text.arrays import save_array
from stages.text.documents import ROW_GROUP, Document, DocumentWriter, read_file
from stages.text.spans import without_spans, word_places

Dropped = dict[int, tuple[int, str]]
NOTHING_KEPT = {
    f"{split}_{unit}": 0 for split in ("train", "heldout") for unit in ("documents", "bytes")
}
"""These counts are told of every corpus; those by language only where there are some."""


def is_heldout(document_id: str, fraction: float) -> bool:
    """Whether a document is held out: by the hash of its id, so it is the same in every run."""
    number = int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "big")
    return number < fraction * 2**64


def share_out(kept: Sequence[int], documents_per_file: int) -> list[range]:
    """Units by file: whole units, until a file holds at least so many documents."""
    files, first, held = [], 0, 0
    for unit, count in enumerate(kept):
        held += count
        if held >= documents_per_file:
            files.append(range(first, unit + 1))
            first, held = unit + 1, 0
    if first < len(kept) or not files:
        files.append(range(first, len(kept)))
    return files


@dataclass
class Books:
    """What is added up while units are gone through once: ledger, counts, what truth asks for."""

    ledger: Ledger = field(default_factory=Ledger)
    counts: Counter[str] = field(default_factory=lambda: Counter(NOTHING_KEPT))
    hits: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        written = {
            "ledger": self.ledger.as_json()["rows"],
            "counts": self.counts,
            "hits": self.hits,
            "masked": self.masked,
            "outcomes": self.outcomes,
            "texts": self.texts,
        }
        path.write_text(json.dumps(written), encoding="utf-8")

    def add_file(self, path: Path) -> None:
        """Add the books of one file."""
        part = json.loads(path.read_text(encoding="utf-8"))
        self.ledger.add_counts(part["ledger"])
        for name in ("counts", "hits", "masked"):
            getattr(self, name).update(part[name])
        self.outcomes |= part["outcomes"]
        self.texts |= part["texts"]


class FileWorker:
    """Writes one file after the other into folders of `out`."""

    def __init__(
        self,
        search: Search,
        gone: Sequence[Path],
        files: Sequence[range],
        out: Path,
        heldout_fraction: float,
        samples: int,
        truth_urls: frozenset[str],
        repeats: Sequence[Path] = (),
        span_words: int = 0,
    ) -> None:
        self.search, self.gone, self.files, self.out = search, gone, files, out
        self.heldout_fraction, self.samples = heldout_fraction, samples
        self.truth_urls = truth_urls
        self.repeats, self.span_words = repeats, span_words

    def __call__(self, number: int) -> str:
        final = self.out / f"{number:05d}"
        temporary = self.out / f"{final.name}.part-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        clock, books = Clock(), Books()
        documents = DocumentWriter(temporary / "documents.parquet")
        keys, samples = [], Counter[str]()
        with (temporary / "dropped.jsonl").open("w", encoding="utf-8", errors="replace") as sampled:
            for unit in self.files[number]:
                part = self.search.published + unit
                folder = self._folder(part)
                first, last = (int(self.search.starts[n]) for n in (part, part + 1))
                dropped = dropped_between(self.gone, first, last)
                repeated = repeats_between(self.repeats, first, last)
                staying = []
                for row, document, outcome in self._fates(folder, books):
                    if first + row in dropped:
                        kept, reason = dropped[first + row]
                        outcome |= {"step": "dedup", "reason": self._reason(kept, reason)}
                        samples[outcome["reason"]] += 1
                        if samples[outcome["reason"]] <= self.samples:
                            line = self._sample(folder.name, document, outcome, kept)
                            sampled.write(json.dumps(line, ensure_ascii=False) + "\n")
                        continue
                    if first + row in repeated:
                        document = self._cut(document, repeated[first + row], books)
                        if not document.text:
                            outcome |= {"step": "dedup", "reason": "repeated_spans"}
                            continue
                    staying.append(row)
                    documents.add(self._publish(document, books))
                keys.append(np.asarray(CommittedUnit(folder).keys[staying]))
        documents.close()
        save_array(temporary / "signatures.npy", np.concatenate(keys))
        books.save(temporary / "books.json")
        clock.write(temporary / TOOK)
        if not final.exists():
            temporary.rename(final)
        shutil.rmtree(temporary, ignore_errors=True)
        return final.name

    def _folder(self, part: int) -> Path:
        found = self.search.parts[part]
        assert isinstance(found, CommittedUnit)
        return found.folder

    def _fates(self, folder: Path, books: Books) -> Iterator[tuple[int, Document, dict[str, Any]]]:
        """(row, document, outcome) of each document that reached dedup; every outcome is booked
        once the caller has set its fate.
        """
        documents = enumerate(read_file(folder / "documents.parquet"))
        with pq.ParquetFile(folder / "outcomes.parquet") as outcomes:
            for batch in outcomes.iter_batches(ROW_GROUP):
                rows = batch.to_pylist()
                for outcome in rows:
                    if outcome["step"] == "kept":
                        row, document = next(documents)
                        yield row, document, outcome
                books.ledger.add(rows)
                for row in rows:
                    if row["step"] == "decontamination":
                        books.hits[row["reason"]] += 1
                    if row["url"] in self.truth_urls:
                        books.outcomes[row["url"]] = row
        books.masked.update(json.loads((folder / "counts.json").read_text())["masked"])

    def _cut(self, document: Document, first_words: Sequence[int], books: Books) -> Document:
        """Without what earlier documents have; without any text if less than a span is left."""
        text = without_spans(document.text, first_words, self.span_words)
        books.counts["bytes_of_repeated_spans"] += len(document.text.encode()) - len(text.encode())
        left = len(word_places(text)) >= self.span_words
        return replace(document, text=text if left else "")

    def _reason(self, kept: int, reason: str) -> str:
        """Dropped for a document of an older corpus is another reason than for one of this."""
        return f"{reason}_published" if kept < self.search.settled else reason

    def _publish(self, document: Document, books: Books) -> Document:
        split = "heldout" if is_heldout(document.id, self.heldout_fraction) else "train"
        books.counts[f"{split}_documents"] += 1
        size = len(document.text.encode("utf-8", "replace"))
        books.counts[f"{split}_bytes"] += size
        books.counts[f"{split}_bytes_{document.language}"] += size
        books.counts[f"documents_{document.language}"] += 1
        if document.url in self.truth_urls:
            books.texts[document.url] = document.text
        return replace(document, split=split, passed=f"{document.passed} dedup")

    def _sample(
        self, unit: str, document: Document, outcome: dict[str, Any], kept: int
    ) -> dict[str, Any]:
        part, row = self.search.locate(kept)
        found = self.search.parts[part]
        group, within = divmod(row, ROW_GROUP)
        with pq.ParquetFile(found.documents) as file:
            survivor = file.read_row_group(group, columns=["id", "url"]).slice(within, 1)
        return {
            "unit": unit, "url": document.url, "offset": document.offset,
            "bytes": outcome["bytes"], "reason": outcome["reason"], "step": "dedup",
            "language": document.language, "text": document.text[:SAMPLE_CHARS],
            "kept": survivor.to_pylist()[0],
        }  # fmt: skip
