"""Trains the tokenizer on a stratified sample: per language, within a bound on memory.

Which documents are in the sample follows from the hash of their ids, so it does not depend on the
order of files. Of a corpus of many files only some are read, chosen by their names' hashes, so that
time and memory follow the sample and not the corpus.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import cast

import tokenizers

from cluster.artifact import Artifact
from cluster.errors import UserError
from model.tokenizer import Tokenizer
from stages.stage import Context, Inputs, Metrics, StageConfig, one
from stages.text.documents import document_files, read_documents, read_file
from stages.tokenizer import Config

_MEASURED_BYTES = 2 << 20
_FILES = 64  # the sample comes from at least about so many files


def known_language_bytes(corpus: Artifact) -> dict[str, int]:
    """UTF-8 bytes of training text per language: as the corpus says, else counted."""
    head = "train_bytes_"
    said = {n[len(head) :]: int(v) for n, v in corpus.metrics.items() if n.startswith(head)}
    return dict(sorted(said.items())) or language_bytes(corpus.path)


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


def _drawn(name: str, share: float) -> bool:
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"tokenizer").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def sample(corpus: Path, shares: Mapping[str, float]) -> Iterator[str]:
    """The sampled training texts, in the corpus's order."""
    files = document_files(corpus)
    wanted = max(*shares.values(), min(1.0, _FILES / len(files)))  # of the files
    chosen = [file for file in files if _drawn(file.name, wanted)] if wanted < 1 else files
    for file in chosen or files[:1]:
        for document in read_file(file, "train"):
            if _drawn(document.id, shares[document.language] / wanted):
                yield document.text


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write the tokenizer's files into `context.out`."""
    config = cast(Config, config)
    corpus = one(inputs, "corpus").path
    sizes = known_language_bytes(one(inputs, "corpus"))
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
    beside = {}
    if config.beside:
        other = _read_tokenizer(Path(config.beside))
        beside["bytes_per_token_beside"] = bytes_per_token(other, corpus, set(sizes))
    return {
        "vocabulary_size": tokenizer.vocabulary_size,  # less than asked where the text has no more
        "sampled_documents": texts,
        "bytes_per_token": bytes_per_token(tokenizer.backend, corpus, set(sizes)),
        **beside,
    }


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no class of its own for this
        raise UserError(
            f"beside: {path} cannot be read as a tokenizer ({error}); expected a tokenizer.json"
        ) from error


def bytes_per_token(
    backend: tokenizers.Tokenizer, corpus: Path, languages: Set[str]
) -> dict[str, float]:
    """Compression per language, on held-out text where there is some, else on training text; it
    stops reading when every language was measured.
    """
    measured: dict[str, list[int]] = {}
    for split in ("heldout", "train"):
        known = set(measured)
        waiting = set(languages) - known
        for document in read_documents(corpus, split):
            if not waiting:
                break
            counts = measured.setdefault(document.language, [0, 0])
            if document.language not in known and counts[0] <= _MEASURED_BYTES:
                counts[0] += len(document.text.encode("utf-8", "replace"))
                counts[1] += len(backend.encode(document.text, add_special_tokens=False).ids)
            else:
                waiting.discard(document.language)
    return {name: round(b / max(1, t), 4) for name, (b, t) in sorted(measured.items())}
