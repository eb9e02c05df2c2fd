"""One unit through all steps that look at one document at a time, committed by a rename.

What the folder of a committed unit holds is told in `unit_files`. It is a function of the unit and
the settings: a unit that is done again gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from stages.corpus.settings import Settings
from stages.corpus.sources import Job
from stages.corpus.unit_files import Outcome, UnitWriter
from stages.text import charset, dedup, extraction, language, privacy, quality
from stages.text.archives import Damaged, Page, Record, Skipped
from stages.text.decontamination import Decontaminator
from stages.text.documents import Document
from stages.text.quality import QualityFilters
from stages.text.readers import read_unit


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

    def __call__(self, job: Job) -> str:
        """Read, judge and commit one unit; returns the name of its folder."""
        temporary = self.folder / f"{job.folder}.part-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        with UnitWriter(temporary, self.settings.samples_per_reason) as written:
            for record in read_unit(job.unit, self.settings.max_page_bytes):
                written.add(self._judge(record, job, written))
        final = self.folder / job.folder
        if not final.exists():
            temporary.rename(final)
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
                self._steps(record, job, outcome, written)
            except Exception as error:  # a page that breaks a library must not stop the run
                outcome.step, outcome.reason = "quarantine", f"error_{type(error).__name__}"
                outcome.detail = str(error)[:500]
        return outcome

    def _steps(self, page: Page, job: Job, outcome: Outcome, written: UnitWriter) -> None:
        """The steps in order; each that refuses sets `step` and `reason` and ends the
        page's way.
        """
        settings = self.settings
        text = page.text if page.text is not None else charset.decode(page.body, page.charset)[0]
        if page.media_type == "text/html":
            text = extraction.extract_main_text(text)
        text = outcome.text = extraction.tidy(text)
        if not text:
            outcome.step, outcome.reason = "extraction", "no_text"
            return
        outcome.language = (
            job.unit.language
            or page.language
            or language.identify(text, settings.languages, settings.language_threshold)
        )
        if outcome.language not in settings.languages:
            outcome.step, outcome.reason = "language", outcome.language
            return
        verdict = self.filters.verdict(text, outcome.language, job.profile)
        if not verdict.kept:
            outcome.step, outcome.reason = verdict.filter, verdict.reason
            return
        written.searched += 1
        hit = self.decontaminator.find(verdict.text)
        if hit is not None:
            outcome.step, outcome.reason = "decontamination", hit.how
            return
        self._keep(page, job, verdict.text, outcome, written)

    def _keep(self, page: Page, job: Job, text: str, outcome: Outcome, written: UnitWriter) -> None:
        passed = ["extraction", f"language:{outcome.language}"]
        overrides = self.settings.quality.get(outcome.language)
        passed += [*quality.settings(outcome.language, job.profile, overrides), "decontamination"]
        if self.settings.mask_personal_data:
            text, kinds = privacy.mask(text)
            outcome.masked = kinds.total()
            written.masked += kinds
            passed.append(f"personal_data:{outcome.masked}")
        outcome.id = document_id(job.unit.key, page.offset, page.url)
        document = Document(
            outcome.id, text, page.url, job.unit.key, outcome.language, "train", page.offset,
            " ".join(passed),
        )  # fmt: skip
        written.keep(document, dedup.shingles(text, outcome.language))
