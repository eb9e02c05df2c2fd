"""Rates measured when a corpus was made, from manifests in the store, and what they make of a size.

Each step scales with what it works on: records read, documents compared, text written and encoded.
CPU-seconds become hours of cores by the share of the time that workers were busy (`scaling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.artifact import Manifest
from cluster.storage import Store
from stages.text.token_shards import token_dtype


@dataclass(frozen=True)
class Rates:
    """Measured on one corpus artifact, and on tokens made of it or of another."""

    corpus: Manifest
    tokens: Manifest | None

    @property
    def work(self) -> Mapping[str, Any]:
        return self.corpus.metrics["work"]

    @property
    def text_bytes(self) -> float:
        return self.corpus.metrics["train_bytes"] + self.corpus.metrics["heldout_bytes"]

    @property
    def kept_share(self) -> float:
        """Bytes of text kept of each byte of records read."""
        return self.text_bytes / self.corpus.metrics["bytes_in"]

    @property
    def compared(self) -> int:
        """Documents that reached the search for duplicates."""
        return self.corpus.metrics["documents"] + self.corpus.metrics["dropped"].get("dedup", 0)

    @property
    def reading_s(self) -> float:
        """CPU-seconds for each byte of records."""
        spent = self.seconds("units") + self.seconds("lines")
        return spent / self.corpus.metrics["bytes_in"]

    @property
    def comparing_s(self) -> float:
        """CPU-seconds for each document that is compared."""
        return self.seconds("duplicates") / self.compared

    @property
    def writing_s(self) -> float:
        """CPU-seconds for each byte of text that is written."""
        return self.seconds("files") / self.text_bytes

    @property
    def encoded_bytes(self) -> float:
        """Bytes of text that the tokens were made of."""
        assert self.tokens is not None
        return self.tokens.metrics["train_bytes"] + self.tokens.metrics["heldout_bytes"]

    @property
    def text_per_token(self) -> float:
        """Bytes of text for each training token, held-out text counted in."""
        assert self.tokens is not None
        return self.encoded_bytes / self.tokens.metrics["train_tokens"]

    @property
    def encoding_s(self) -> float:
        """CPU-seconds for each byte of text that is encoded."""
        assert self.tokens is not None
        return self.tokens.metrics["work"]["files"]["cpu_seconds"] / self.encoded_bytes

    @property
    def token_bytes(self) -> float:
        """Bytes in the store for each training token."""
        assert self.tokens is not None
        return self.tokens.size / self.tokens.metrics["train_tokens"]

    def seconds(self, step: str) -> float:
        """CPU-seconds of one step."""
        return float(self.work[step].get("cpu_seconds", 0.0))

    @property
    def scratch_share(self) -> float:
        """Bytes in scratch at the end, for each byte of text."""
        steps = ("lines", "units", "duplicates")
        return sum(self.work[s].get("scratch_bytes", 0) for s in steps) / self.text_bytes

    @property
    def archive_share(self) -> float | None:
        """Bytes of the archives, compressed as they are, for each byte of records."""
        units = self.work["units"]
        if not units.get("archived_bytes"):
            return None
        return float(units["archive_bytes"] / units["archived_bytes"])


@dataclass(frozen=True)
class Estimate:
    """What so many training tokens take at these rates."""

    tokens: float
    rates: Rates
    vocabulary: int | None = None
    """Of the tokens to be stored, where it is another than that measured."""
    busy_share: float = 1.0
    """Of the time that cores are held."""

    @property
    def text_bytes(self) -> float:
        return self.tokens * self.rates.text_per_token

    @property
    def record_bytes(self) -> float:
        return self.text_bytes / self.rates.kept_share

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """By what they are spent on."""
        rates = self.rates
        documents = self.record_bytes / rates.corpus.metrics["bytes_in"] * rates.compared
        return {
            "reading": self.record_bytes * rates.reading_s,
            "comparing": documents * rates.comparing_s,
            "writing": self.text_bytes * rates.writing_s,
            "encoding": self.text_bytes * rates.encoding_s,
        }

    @property
    def core_hours(self) -> float:
        """Of cores that are held, busy or not."""
        return sum(self.cpu_seconds.values()) / self.busy_share / 3600

    @property
    def stored_bytes(self) -> dict[str, float]:
        """By what lies in the store."""
        share = self.rates.corpus.size / self.rates.text_bytes
        return {
            "corpus": self.text_bytes * share,
            "tokens": self.tokens * (self.rates.token_bytes + self._wider),
        }

    @property
    def _wider(self) -> int:
        """Bytes that a token of the vocabulary takes more than one of those measured."""
        assert self.rates.tokens is not None
        measured = self.rates.tokens.metrics["vocabulary_size"]
        sizes = [token_dtype(size).itemsize for size in (measured, self.vocabulary or measured)]
        return sizes[1] - sizes[0]


def measured(store: Store, kind: str) -> Iterable[Manifest]:
    """The artifacts of a stage that tell what their work took."""
    for artifact_id in store.ids():
        if artifact_id.startswith(f"{kind}-"):
            manifest = store.manifest(artifact_id)
            if "work" in manifest.metrics:
                yield manifest


def tokens_of(corpus: Manifest, store: Store) -> Manifest | None:
    """Tokens made of the corpus, else the largest in the store."""
    found = list(measured(store, "tokens"))
    return max(
        found,
        key=lambda m: (corpus.id in m.parents.get("corpus", ()), m.metrics["train_tokens"]),
        default=None,
    )
