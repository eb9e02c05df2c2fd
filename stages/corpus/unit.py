"""One unit through all steps that look at one document at a time, committed by a rename.

What the folder of a committed unit holds is told in `unit_files`. It is a function of the unit and
the settings: a unit that is done again gives the same bytes (but for what it took).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np

from cluster.took import TOOK, Clock
from stages.corpus.screen import Screen
from stages.corpus.settings import Settings
from stages.corpus.source import Profile
from stages.corpus.sources import Job
from stages.corpus.unit_files import Outcome, UnitWriter
from stages.text import boilerplate, charset, dedup, extraction, quality
from stages.text.decontamination import Decontaminator
from stages.text.documents import Document
from stages.text.quality import QualityFilters
from stages.text.readers import read_unit
from stages.text.records import Damaged, Page, Record, Skipped

Kept = tuple[Document, np.ndarray]
"""A document and its shingles."""


def document_id(unit_key: str, offset: int, url: str) -> str:
    """128 bits in hex of where the record lies: the same on every machine."""
    place = f"{unit_key}\0{offset}\0{url}".encode("utf-8", "replace")
    return hashlib.blake2b(place, digest_size=16).hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir())


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
        temporary = self.folder / f"{job.folder}.part-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        clock = Clock()
        try:
            with UnitWriter(temporary, self.settings.samples_per_reason) as written:
                for record in read_unit(job.unit, self.settings.max_page_bytes):
                    written.add(self._judge(record, job, written))
            sizes = {"scratch_bytes": size_of(temporary)}
            if read := sum(file.size for file in job.unit.files):
                sizes |= {"archive_bytes": read, "archived_bytes": written.bytes}
            clock.write(temporary / TOOK, **sizes)
            final = self.folder / job.folder
            if not final.exists():
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return job.folder

    def _judge(self, record: Record, job: Job, written: UnitWriter) -> Outcome:
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
                kept = self._steps(record, job, outcome, written)
            except Exception as error:  # a page that breaks a library must not stop the run
                outcome.step = "quarantine"
                outcome.reason = getattr(error, "reason", f"error_{type(error).__name__}")
                outcome.detail = str(error)[:500]
                return outcome
            if kept is not None:  # what fails here is the disk's fault, and ends the run
                written.keep(*kept)
        return outcome

    def text_of(self, page: Page, job: Job) -> str:
        """The page's main text, tidied; "" if there is none."""
        text = page.text if page.text is not None else charset.decode(page.body, page.charset)[0]
        if page.media_type == "text/html":
            text = extraction.extract_main_text(text, job.extractor or self.settings.extractor)
        return extraction.tidy(text)

    def _steps(self, page: Page, job: Job, outcome: Outcome, written: UnitWriter) -> Kept | None:
        """The steps in order; each that refuses sets `step` and `reason` and ends the
        page's way. What passes all of them is returned.
        """
        blocked = self.screen.address(page.url)
        if blocked:
            outcome.step, outcome.reason = "blocklist", blocked
            return None
        text = outcome.text = self.text_of(page, job)
        if self.boilerplate is not None:
            text = boilerplate.without(page.url, text, self.boilerplate)
        if not text:
            outcome.step = "boilerplate" if outcome.text else "extraction"
            outcome.reason = "no_text"
            return None
        told = self.screen.language(text, job.unit.language or page.language)
        outcome.language = told.language
        if not told.accepted:
            outcome.step, outcome.reason = "language", told.language
            return None
        said = self.screen.words(text, outcome.language)
        if said:
            outcome.step, outcome.reason = "word_list", said
            return None
        verdict = self.filters.verdict(text, outcome.language, job.profile)
        if not verdict.kept:
            outcome.step, outcome.reason = verdict.filter, verdict.reason
            return None
        written.searched += 1
        hit = self.decontaminator.find(verdict.text)
        if hit is not None:
            outcome.step, outcome.reason = "decontamination", hit.how
            return None
        held = self.screen.personal(verdict.text, outcome.language)
        if held and self.settings.mask_personal_data:
            outcome.step, outcome.reason = "personal_data", held
            return None
        return self._kept(page, job, verdict.text, outcome, written)

    def _passed(self, language: str, profile: Profile) -> list[str]:
        """The steps that a page which is kept went through, in order."""
        screen = self.settings.screen
        blocked = (*screen.blocked_domains, *screen.blocked_urls, *screen.blocked_url_words)
        overrides = self.settings.quality.get(language)
        return [
            *(["blocklist"] if blocked else []),
            "extraction",
            *(["boilerplate"] if self.boilerplate is not None else []),
            f"language:{language}",
            *(["word_list"] if any(s.language == language for s in screen.word_lists) else []),
            *quality.settings(language, profile, overrides),
            "decontamination",
        ]

    def _kept(self, page: Page, job: Job, text: str, outcome: Outcome, written: UnitWriter) -> Kept:
        passed = self._passed(outcome.language, job.profile)
        if self.settings.mask_personal_data:
            text, kinds = self.screen.mask(text, outcome.language)
            outcome.masked = kinds.total()
            written.masked += kinds
            passed.append(f"personal_data:{outcome.masked}")
        outcome.id = document_id(job.unit.key, page.offset, page.url)
        while not written.is_new(page.offset, outcome.id):
            outcome.id = document_id(job.unit.key, page.offset, outcome.id)
        document = Document(
            outcome.id, text, page.url, job.unit.key, outcome.language, "train", page.offset,
            " ".join(passed),
        )  # fmt: skip
        return document, dedup.shingles(text, outcome.language)
