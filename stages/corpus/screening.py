"""What a page must pass besides being read: the part of the corpus's config that says it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.stage import StageConfig

Kind = Literal[
    "secret", "url_credentials", "email", "crypto_wallet", "resident_id", "passport", "iban",
    "credit_card", "social_security", "mac", "ip", "gps", "phone",
]  # fmt: skip
_NAMES = ("datatrove", "adult", "gambling")


class WordList(BaseModel):
    """Words that condemn a page of a language when it says more of them than is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    list: str
    """A file with one word or phrase a line, or `adult` or `gambling`."""
    language: str
    per_thousand: float = Field(default=0.0, ge=0)
    """So many of a thousand words may be of the list; 0 allows none, as C4 does."""


class Screening(StageConfig):
    """Languages' limits, blocklists, word lists and what happens to personal data."""

    language_thresholds: dict[str, float] = Field(default_factory=dict)
    """Language -> probability that a page of it must reach. A language without one is taken when
    `language_threshold` is reached, or no other is likelier."""
    language_model: str | None = None
    """A fastText model's file (GlotLID, lid.176) instead of the built-in one; extra `fasttext`."""
    fineweb2: str | None = None
    """FineWeb-2's `configs` folder: its tuned filter settings for every language that has a file
    there; `quality` still overrides them."""
    blocked_domains: list[str] = Field(default_factory=list)
    """Files of domains, whose subdomains go too; or `datatrove`: the list that FineWeb used."""
    blocked_urls: list[str] = Field(default_factory=list)
    """Files of single URLs, or `datatrove`."""
    blocked_url_words: list[str] = Field(default_factory=list)
    """Files of words that no URL may hold, or `datatrove`."""
    word_lists: list[WordList] = Field(default_factory=list)
    """Bad words and toxicity: lists that a page of their language must not say too much of."""
    personal_data: dict[Kind, Literal["mask", "remove", "drop", "keep"]] = Field(
        default_factory=dict
    )
    """Kind -> mask it (`<kind>`), remove it, drop the document, or keep it; mask where not said."""
    boilerplate_pages: int = Field(default=0, ge=0)
    """A line on at least so many pages of one host, over all sources, is its boilerplate and is
    left out of all of them; 0 leaves lines alone. Everything is read once more to count them."""

    @model_validator(mode="after")
    def _sensible_boilerplate(self) -> Screening:
        if self.boilerplate_pages == 1:
            raise ValueError(
                "boilerplate_pages is 1, which takes every line out of every page; expected 0 (off)"
                " or at least 2, such as 5"
            )
        return self

    def files(self) -> list[str]:
        """The files outside the store that decide content."""
        lists = [*self.blocked_domains, *self.blocked_urls, *self.blocked_url_words]
        lists += [entry.list for entry in self.word_lists]
        found = [name for name in lists if name not in _NAMES]
        return found + ([self.language_model] if self.language_model else [])


def fingerprint_files(config: Screening) -> list[Any]:
    """Hashes of the lists and of the model; a missing file stands as such, and `run` refuses it."""
    prints: list[Any] = []
    for name in config.files():
        path = Path(name)
        if path.is_file():
            with path.open("rb") as file:
                prints.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
        else:
            prints.append([path.name, None])
    if config.fineweb2:
        for path in sorted(Path(config.fineweb2).glob("*.yml")):
            prints.append([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
    return prints
