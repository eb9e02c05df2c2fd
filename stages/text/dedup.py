"""Exact and near duplicates: keys, signatures, candidate pairs, verified edges, components.

Near duplicates follow MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3):
datatrove's signatures, 14 bands of 8 hashes over 5-grams, so that a pair of Jaccard similarity s is
a candidate with probability 1 - (1 - s^8)^14. Unlike datatrove's own clustering, rows are keyed by
document id and partitioned by the band's hash, and a candidate pair becomes an edge only when the
Jaccard similarity of its two shingle sets, computed exactly, reaches the threshold: chained false
positives cannot swallow a source. The survivor of a component is its first document in crawl order.

Every function works on one partition and knows no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import xxhash
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import TextNormConfig, simplify_text

from stages.text.words import word_tokenizer

BANDS = 14
HASHES_PER_BAND = 8
SHINGLE_WORDS = 5
_ALL_PAIRS_UP_TO = 24  # documents of one bucket; larger ones are compared with their leaders only
# Numbers decide what a page of facts or arithmetic says: unlike datatrove's default, keep them.
_NORMALISATION = TextNormConfig(norm_numbers=False)


def exact_key(text: str) -> int:
    """64 bits of the text without regard to case, space, punctuation and diacritics."""
    return xxhash.xxh3_64_intdigest(simplify_text(text, _NORMALISATION).encode())


@cache
def _signer(language: str) -> MinhashDedupSignature:
    config = MinhashConfig(
        n_grams=SHINGLE_WORDS,
        num_buckets=BANDS,
        hashes_per_bucket=HASHES_PER_BAND,
        norm_config=_NORMALISATION,
    )
    tokenizer: Any = word_tokenizer(language)
    return MinhashDedupSignature(output_folder=".", config=config, language=tokenizer)


def shingles(text: str, language: str) -> np.ndarray:
    """The set of the text's hashed word 5-grams, sorted uint64. A shorter text is one shingle."""
    found = np.unique(_signer(language).get_shingles(text))
    if found.size == 0:
        return np.asarray([exact_key(text)], dtype=np.uint64)
    return found


def band_keys(shingle_set: np.ndarray) -> list[int]:
    """One 64-bit key per band of the MinHash signature; equal keys make candidates."""
    with np.errstate(over="ignore"):  # the permutation is arithmetic modulo 2^64
        signature = _signer("en").get_signature(shingle_set.reshape(-1, 1))
    return [
        xxhash.xxh3_64_intdigest(np.asarray([band, *hashes], dtype=np.uint64).tobytes())
        for band, hashes in enumerate(signature)
    ]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a & b| / |a | b| of two sorted sets of shingles."""
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both)


def buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of at least two row numbers with the same key, each in ascending order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if last - first > 1:
            yield order[first:last]


def verified_edges(
    documents: Sequence[int],
    shingles_of: Callable[[int], np.ndarray],
    threshold: float,
    seen: set[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Edges among the documents of one bucket whose exact Jaccard similarity reaches the threshold.

    Small buckets compare all pairs. In a large one each document is compared with the leaders found
    so far (documents that no earlier leader resembled), which is linear where all are alike. Pairs
    in `seen` were decided in another bucket already.
    """
    edges: list[tuple[int, int]] = []
    ordered = sorted(set(documents))
    all_pairs = len(ordered) <= _ALL_PAIRS_UP_TO
    leaders: list[int] = []
    for document in ordered:
        led = False
        for leader in leaders:
            pair = (leader, document)
            if pair in seen:
                led = True
                continue
            if jaccard(shingles_of(leader), shingles_of(document)) >= threshold:
                seen.add(pair)
                edges.append(pair)
                led = True
                if not all_pairs:
                    break
        if all_pairs or not led:
            leaders.append(document)
    return edges


def components(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Node -> smallest node of its connected component, for every node that has an edge
    (union-find).
    """
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {node: root(node) for node in parent}
