"""The corpus stage: crawls and other sources in, clean documents with an exact ledger out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from stages.corpus.screening import Screening, fingerprint_files
from stages.corpus.source import Extractor, Source
from stages.stage import Stage, execution, parent


class Config(Screening):
    """What becomes the corpus, and how it is judged."""

    crawls: list[str] = parent("examples", many=True, optional=True)
    """Crawl artifacts: archives, with a truth.jsonl where they were generated."""
    sources: list[Source] = Field(default_factory=list)
    decontaminate: list[str] = parent("examples", many=True, optional=True)
    """Problem artifacts: documents that hold an evaluation question are dropped."""
    published: list[str] = parent("corpus", many=True, optional=True)
    """Older corpora: what this one has in common with them is dropped, and they stay as they are.
    """
    languages: list[str] = Field(default=["en", "zh"], min_length=1)
    """ISO 639-1 codes; zh-Hans or zh-Hant takes one script only."""
    language_threshold: float = Field(default=0.3, gt=0, le=1)
    quality: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Language -> datatrove filter (gopher_repetition, gopher_quality, c4, fineweb) -> its
    settings.
    """
    duplicate_similarity: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of 5-grams (of words, or of characters where words have no spaces between
    them) from which two documents are near duplicates.
    """
    repeated_span_words: int | None = Field(default=None, ge=10)
    """Cut out stretches of at least so many words that an earlier document has word for word (50 is
    usual); not done if not given, since it needs a record for every word.
    """
    mask_personal_data: bool = True
    """false leaves personal data alone; `personal_data` says more."""
    heldout_fraction: float = Field(default=0.02, ge=0, lt=1)
    max_page_bytes: int = Field(default=16 << 20, gt=0)
    documents_per_file: int = Field(default=20_000, gt=0)
    """A file is closed with the unit that reaches this many."""
    samples_per_reason: int = Field(default=5, ge=0)
    """How many dropped documents of each reason to keep for reading."""
    extractor: Extractor = "resiliparse"
    """What takes the main text out of HTML, where a source does not say it."""
    workers: int | None = execution(None, ge=0)
    """Ray actors that read units; as many as cores if not given; 0 works in this process, without
    Ray.
    """

    @model_validator(mode="after")
    def _some_input(self) -> Config:
        if not self.crawls and not self.sources:
            raise ValueError("nothing to read: name `crawls` or give `sources`")
        return self


def fingerprint(config: Config) -> Any:
    """Stands for the files, datasets and packages outside the store in the artifact's id."""
    from stages.corpus.sources import fingerprint_sources

    return fingerprint_sources(config.sources) + fingerprint_files(config)


STAGE = Stage(
    name="corpus",
    kind="corpus",
    version=5,
    config=Config,
    entry="stages.corpus.run:run",
    fingerprint=fingerprint,
)
