"""An interpolated modified Kneser-Ney n-gram model over token ids: what a base model has to beat.

Chen and Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling",
section 3: three discounts per order, the highest order on raw counts, the lower ones on the number
of distinct left neighbours, and a uniform distribution below the unigrams. Trained and queried in
numpy: n-grams are sorted 64-bit keys (id of the context's prefix x vocabulary + last token), so
that millions of tokens take seconds.

Every document begins behind a start symbol that is a context and never predicted, and no n-gram
crosses from one document into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """All n-grams of one length: `keys` sorted; discounted probability; back-off by context."""

    keys: Ints
    """context id x vocabulary + last token, sorted; the position is the n-gram's id."""
    discounted: Floats
    """(count - discount) / total of the context, for each n-gram."""
    backoff: Floats
    """The mass left to the lower order, for each context id (1 where the context was not seen)."""


def _discounts(counts: Ints) -> Floats:
    """D1, D2, D3+ from the counts of counts (Chen and Goodman, equation 26)."""
    n1, n2, n3, n4 = (float((counts == times).sum()) for times in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:  # too little text to estimate from: KenLM's fallback
        return np.array([0.5, 1.0, 1.5])
    ratio = n1 / (n1 + 2 * n2)
    raw = [1 - 2 * ratio * n2 / n1, 2 - 3 * ratio * n3 / n2, 3 - 4 * ratio * n4 / n3]
    return np.array([min(max(d, 0.05), i + 0.95) for i, d in enumerate(raw)])


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Positions of `wanted` in the sorted `keys`; -1 where absent."""
    if keys.size == 0:
        return np.full(wanted.shape, -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, place, -1)


class KneserNey:
    """p(token | up to order-1 tokens before it in the same document)."""

    def __init__(self, vocabulary_size: int, orders: list[_Order]) -> None:
        self.vocabulary_size = vocabulary_size
        self._orders = orders

    @property
    def order(self) -> int:
        return len(self._orders)

    @property
    def ngrams(self) -> list[int]:
        """How many distinct n-grams there are of each length."""
        return [order.keys.size for order in self._orders]

    @classmethod
    def train(cls, documents: Sequence[Ints], vocabulary_size: int, order: int = 5) -> KneserNey:
        """Count `documents` (arrays of token ids below `vocabulary_size`) and smooth."""
        if order < 1 or not any(len(document) for document in documents):
            raise ValueError(f"an n-gram model needs text and an order above 0; found {order}")
        tokens, position = _concatenate(documents, vocabulary_size)
        ends_here = np.zeros(tokens.size, dtype=np.int64)  # id of the n-gram that ends here
        keys: list[Ints] = []
        counts: list[Ints] = []
        for length in range(1, order + 1):
            enough = np.flatnonzero(position >= length - 1)
            context = ends_here[enough - 1] if length > 1 else np.zeros_like(enough)
            shorter = ends_here[enough]
            found, ids, raw = np.unique(
                context * (vocabulary_size + 1) + tokens[enough],
                return_inverse=True,
                return_counts=True,
            )
            if length > 1:
                suffix = np.zeros(found.size, dtype=np.int64)
                suffix[ids] = shorter
                neighbours = np.bincount(suffix, minlength=keys[-1].size)
                # nothing stands left of a document's start: there the raw count is the count
                counts[-1] = np.where(neighbours > 0, neighbours, counts[-1])
            keys.append(found)
            counts.append(raw)
            ends_here[enough] = ids
        counts[0][keys[0] == vocabulary_size] = 0  # the start is a context, never predicted
        contexts = [1, *(found.size for found in keys[:-1])]
        return cls(
            vocabulary_size,
            [
                _smooth(found, count, size, vocabulary_size + 1)
                for found, count, size in zip(keys, counts, contexts, strict=True)
            ],
        )

    def log2_probabilities(self, document: Ints) -> Floats:
        """log2 p of every token of one document, given those before it. Shape [tokens]."""
        tokens = np.concatenate([[self.vocabulary_size], np.asarray(document, dtype=np.int64)])
        contexts = [context[1:] for context in self._contexts(tokens)]
        return np.log2(self._score(tokens[1:], contexts))

    def distribution(self, history: Ints) -> Floats:
        """p(. | a document's tokens so far), shape [vocabulary]; sums to one."""
        unknown = [0]  # the token to come does not change its own context
        tokens = np.concatenate([[self.vocabulary_size], np.asarray(history, np.int64), unknown])
        every = np.arange(self.vocabulary_size, dtype=np.int64)
        return self._score(every, [np.full_like(every, c[-1]) for c in self._contexts(tokens)])

    def _contexts(self, tokens: Ints) -> list[Ints]:
        """For each order, the id of the context before every token (-1: not seen in training)."""
        contexts = [np.zeros(tokens.size, dtype=np.int64)]
        for depth in range(self.order - 1):
            context = np.full(tokens.size, -1, dtype=np.int64)
            context[1:] = self._extend(depth, contexts[depth], tokens)[:-1]
            contexts.append(context)
        return contexts

    def _extend(self, depth: int, context: Ints, tokens: Ints) -> Ints:
        """Ids of the n-grams (context, token) of length depth + 1; -1 where not seen."""
        found = _find(self._orders[depth].keys, context * (self.vocabulary_size + 1) + tokens)
        return np.where(context >= 0, found, -1)

    def _score(self, tokens: Ints, contexts: list[Ints]) -> Floats:
        """Interpolate from the uniform distribution up to the longest seen context."""
        probability = np.full(tokens.size, 1.0 / self.vocabulary_size)
        for depth, order in enumerate(self._orders):
            context = contexts[depth]
            seen = context >= 0
            ngram = self._extend(depth, context, tokens)
            own = np.where(ngram >= 0, order.discounted[np.maximum(ngram, 0)], 0.0)
            mass = order.backoff[np.maximum(context, 0)]
            probability = np.where(seen, own + mass * probability, probability)
        return probability


def _concatenate(documents: Sequence[Ints], start: int) -> tuple[Ints, Ints]:
    """All documents in a row, each behind a `start` token, and each token's position in its own."""
    parts: list[Ints] = []
    for document in documents:
        if len(document):
            parts.append(np.concatenate([[start], np.asarray(document, dtype=np.int64)]))
    return np.concatenate(parts), np.concatenate([np.arange(part.size) for part in parts])


def _smooth(keys: Ints, counts: Ints, contexts: int, base: int) -> _Order:
    """Discount the counts of one order; what is taken goes to the context's back-off."""
    discount = _discounts(counts)[np.clip(counts, 1, 3) - 1]
    taken = np.minimum(discount, counts)
    context = keys // base
    total = np.bincount(context, weights=counts, minlength=contexts)
    lost = np.bincount(context, weights=taken, minlength=contexts)
    backoff = np.where(total > 0, lost / np.maximum(total, 1), 1.0)
    return _Order(keys, (counts - taken) / np.maximum(total, 1)[context], backoff)
