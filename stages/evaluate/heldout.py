"""Held-out text: bits per byte and perplexity of models and of the n-gram model, same tokens.

Bits per byte compare models over any tokenizer: the bits spent on the scored tokens over the UTF-8
bytes these tokens stand for. A document's first token has nothing before it and is not scored, for
anyone; its end-of-text token is scored and has no bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import UserError
from stages.evaluate.intervals import Interval, bootstrap_ratio
from stages.evaluate.scoring import Passage, score
from stages.text.token_shards import TokenShards

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TextCost:
    """What a model spends on held-out documents: arrays with one entry for each document."""

    bits: Floats
    size_bytes: Ints
    tokens: Ints

    def bits_per_byte(self, seed: int) -> Interval:
        """With an interval over documents."""
        return bootstrap_ratio(self.bits, self.size_bytes.astype(np.float64), seed)

    def perplexity(self) -> float:
        """exp of the mean natural-log loss of a token."""
        return float(2.0 ** (self.bits.sum() / self.tokens.sum()))


def read_all(shards: TokenShards) -> list[Ints]:
    """Every document of a folder of shards, as arrays of token ids."""
    tokens, documents = shards.span(0, shards.tokens)
    return np.split(tokens, np.flatnonzero(np.diff(documents)) + 1) if tokens.size else []


def choose(documents: Sequence[Ints], limit_tokens: int, seed: int) -> list[Ints]:
    """Whole documents in a random order until `limit_tokens`; the last one is cut there."""
    chosen: list[Ints] = []
    left = limit_tokens
    for number in np.random.default_rng(seed).permutation(len(documents)):
        document = documents[number][:left]
        if document.size > 1:
            chosen.append(document)
            left -= document.size
        if left < 2:
            break
    if not chosen:
        raise UserError(
            "the tokens artifact holds no held-out document of two tokens or more: give the corpus "
            "more text, or a larger held-out share"
        )
    return chosen


def token_sizes(tokenizer_json: Path, vocabulary_size: int) -> Ints:
    """Bytes of every token id of a byte-level tokenizer; special tokens have none.

    In the byte-level alphabet each byte is one character, so a token's bytes are its characters.
    """
    data: dict[str, Any] = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    sizes = np.zeros(vocabulary_size, dtype=np.int64)
    for text, number in data["model"]["vocab"].items():
        sizes[number] = len(text)
    for added in data["added_tokens"]:
        sizes[added["id"]] = 0 if added["special"] else len(added["content"].encode())
    return sizes


def passages_of(document: Ints, length: int, overlap: int) -> list[Passage]:
    """Cut a document into windows of `length`, each but the first with `overlap` tokens before."""
    if document.size <= length:
        return [Passage(document.tolist())]
    passages = [Passage(document[:length].tolist())]
    for start in range(length, document.size, length - overlap):
        window = document[start - overlap : start - overlap + length]
        passages.append(Passage(window.tolist(), overlap))
    return passages


def model_cost(
    model: Any, documents: Sequence[Ints], sizes: Ints, length: int, overlap: int
) -> TextCost:
    """What a Transformer spends on the documents."""
    cut = [passages_of(document, length, overlap) for document in documents]
    scores = iter(score(model, [passage for passages in cut for passage in passages]))
    nats = [sum(-float(next(scores).logprobs.sum()) for _ in passages) for passages in cut]
    return _cost(np.array(nats) / np.log(2.0), documents, sizes)


def ngram_cost(model: Any, documents: Sequence[Ints], sizes: Ints) -> TextCost:
    """What a KneserNey model spends on the same tokens of the same documents."""
    bits = [-float(model.log2_probabilities(document)[1:].sum()) for document in documents]
    return _cost(np.array(bits), documents, sizes)


def saving(cheaper: TextCost, dearer: TextCost, seed: int) -> Interval:
    """Bits per byte that `cheaper` saves, paired by document: [value, low, high]."""
    return bootstrap_ratio(dearer.bits - cheaper.bits, cheaper.size_bytes.astype(np.float64), seed)


def perplexity_ratio(after: TextCost, before: TextCost, seed: int) -> Interval:
    """perplexity(after) / perplexity(before) - 1, paired by document: [value, low, high]."""
    extra = bootstrap_ratio(after.bits - before.bits, before.tokens.astype(np.float64), seed)
    return [float(2.0**bits - 1.0) for bits in extra]


def _cost(bits: Floats, documents: Sequence[Ints], sizes: Ints) -> TextCost:
    size_bytes = [int(sizes[document[1:]].sum()) for document in documents]
    tokens = [document.size - 1 for document in documents]
    return TextCost(bits, np.array(size_bytes, np.int64), np.array(tokens, np.int64))
