"""Trains the tokenizer on a stratified sample: per language, within a bound on memory.

Which documents are in the sample follows from the hash of their ids, so it does not depend on the
order or the number of files.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from cluster.errors import UserError
from model.tokenizer import Tokenizer
from stages.stage import Context, Inputs, Metrics, StageConfig, one
from stages.text.documents import read_documents
from stages.tokenizer import Config

_MEASURED_BYTES = 2 << 20


def language_bytes(corpus: Path) -> dict[str, int]:
    """UTF-8 bytes of training text per language."""
    sizes: dict[str, int] = defaultdict(int)
    for document in read_documents(corpus, "train"):
        sizes[document.language] += len(document.text.encode("utf-8", "replace"))
    return dict(sorted(sizes.items()))


def sample_shares(
    sizes: Mapping[str, int], sample_bytes: int, min_share: float
) -> dict[str, float]:
    """Language -> share of its documents to take, so that all together stay within
    `sample_bytes`.
    """
    total = sum(sizes.values())
    floor = min(min_share, 1 / len(sizes))
    weights = {name: max(size / total, floor) for name, size in sizes.items()}
    scale = sum(weights.values())
    return {
        name: min(1.0, sample_bytes * weights[name] / scale / size) for name, size in sizes.items()
    }


def _drawn(document_id: str, share: float) -> bool:
    digest = hashlib.blake2b(document_id.encode(), digest_size=8, person=b"tokenizer").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def sample(corpus: Path, shares: Mapping[str, float]) -> Iterator[str]:
    """The sampled training texts, in the corpus's order."""
    for document in read_documents(corpus, "train"):
        if _drawn(document.id, shares[document.language]):
            yield document.text


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write the tokenizer's files into `context.out`."""
    config = cast(Config, config)
    corpus = one(inputs, "corpus").path
    sizes = language_bytes(corpus)
    if not sizes:
        raise UserError(
            f"the corpus {corpus} holds no training text: the tokenizer cannot be learned"
        )
    shares = sample_shares(sizes, config.sample_bytes, config.min_language_share)
    texts = 0

    def counted() -> Iterator[str]:
        nonlocal texts
        for text in sample(corpus, shares):
            texts += 1
            yield text

    tokenizer = Tokenizer.train(counted(), config.vocabulary_size)
    tokenizer.save(context.out)
    return {
        "vocabulary_size": tokenizer.vocabulary_size,  # less than asked where the text has no more
        "sampled_documents": texts,
        "bytes_per_token": bytes_per_token(tokenizer, corpus),
    }


def bytes_per_token(tokenizer: Tokenizer, corpus: Path) -> dict[str, float]:
    """Compression per language, on held-out text where there is some, else on training text."""
    measured: dict[str, list[int]] = {}
    for split in ("heldout", "train"):
        known = set(measured)
        for document in read_documents(corpus, split):
            counts = measured.setdefault(document.language, [0, 0])
            if document.language in known or counts[0] > _MEASURED_BYTES:
                continue
            counts[0] += len(document.text.encode("utf-8", "replace"))
            counts[1] += len(tokenizer.encode(document.text))
    return {name: round(b / max(1, t), 4) for name, (b, t) in sorted(measured.items())}
