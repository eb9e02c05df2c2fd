"""What a corpus costs, from measured figures: core-hours and bytes for so many tokens.

`figures_of` reads them off a corpus that was made (and its tokens, for the compression);
`estimate` scales them. Reading, filtering and signing look at one document at a time, so they scale
with bytes; the search for duplicates is linear in documents (see `python -m tests.bench minhash`:
the work does not grow with the partitions). What is extrapolated is that this stays so beyond the
sizes that were measured, and `scaling`, the share of a core that is left when many work together.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.artifact import Manifest

SHINGLE_BYTES = 8
KEY_BYTES = 15 * 16
"""Per document while duplicates are searched: 15 keys with their documents' numbers."""


@dataclass(frozen=True)
class Figures:
    """Measured on a run: all but `scaling` and the sizes of one number."""

    megabytes_per_core_second: float
    """Of records as they are in the archives, decompressed."""
    kept_bytes_share: float
    """UTF-8 text that is kept, per byte of records."""
    document_bytes: float
    """Text of a kept document."""
    bytes_per_token: float
    stored_bytes_share: float
    """Bytes of the published corpus per byte of its text: zstd, and the signatures."""
    scaling: float
    """Throughput of many workers over that of one, per worker."""
    source: str
    """Which run they are from."""


TINY = Figures(
    megabytes_per_core_second=0.24,
    kept_bytes_share=0.64,
    document_bytes=2670,
    bytes_per_token=3.4,
    stored_bytes_share=0.45,
    scaling=0.9,
    source="recipe tiny's corpus in one process (62 CPU-seconds for 15.2 MB, imports included)",
)
"""A floor: a small corpus, on one slow core of a shared machine, with the start of the process."""


@dataclass(frozen=True)
class Estimate:
    """What so many tokens take."""

    tokens: float
    input_bytes: float
    documents: float
    core_hours: float
    hours: float
    scratch_bytes: float
    """Units, keys and shingles, while the stage runs."""
    corpus_bytes: float
    token_bytes: float
    figures: Figures


def figures_of(corpus: Manifest, tokens: Manifest | None = None, scaling: float = 0.9) -> Figures:
    """The figures of a corpus that was made, and of the tokens made of it."""
    metrics = corpus.metrics
    text = metrics["train_bytes"] + metrics["heldout_bytes"]
    compression = tokens.metrics["bytes_per_token"] if tokens else TINY.bytes_per_token
    return Figures(
        megabytes_per_core_second=metrics["bytes_in"] / 1e6 / corpus.cpu_seconds,
        kept_bytes_share=text / metrics["bytes_in"],
        document_bytes=text / metrics["documents"],
        bytes_per_token=compression,
        stored_bytes_share=corpus.size / text,
        scaling=scaling,
        source=corpus.id,
    )


def estimate(tokens: float, cores: int, figures: Figures = TINY, token_bytes: int = 4) -> Estimate:
    """What it takes to make a corpus of so many tokens on so many cores."""
    text = tokens * figures.bytes_per_token
    read = text / figures.kept_bytes_share
    documents = text / figures.document_bytes
    core_hours = read / 1e6 / figures.megabytes_per_core_second / 3600
    stored = text * figures.stored_bytes_share
    shingles = text / 6 * SHINGLE_BYTES  # about one for each word
    return Estimate(
        tokens=tokens,
        input_bytes=read,
        documents=documents,
        core_hours=core_hours / figures.scaling,
        hours=core_hours / figures.scaling / cores,
        scratch_bytes=2 * stored + documents * KEY_BYTES + shingles,
        corpus_bytes=stored,
        token_bytes=tokens * token_bytes,
        figures=figures,
    )
