"""Exact and near duplicates: keys, signatures, candidate pairs, verified edges, survivors.

Near duplicates follow MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3):
datatrove's shingles and signatures, 14 bands of 8 hashes over word 5-grams (character 5-grams where
words have no spaces between them), so that a pair of Jaccard similarity s is a candidate with
probability 1 - (1 - s^8)^14. Four more bands lie across these, each through one hash of eight of
them: they cost keys but no hashing, and lift recall above that curve (0.64 instead of 0.56 at 0.7).
Unlike datatrove's own clustering, rows are keyed by document and partitioned by the band's hash; a
candidate pair becomes an edge only when the Jaccard similarity of its two shingle sets, computed
exactly, reaches the threshold; and within a component a document goes only if it is itself a near
duplicate of one that stays. So neither false candidates nor a long chain of likenesses can swallow
a source. The first document in crawl order stays.

Every function works on one partition and knows no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

BANDS = 14
HASHES_PER_BAND = 8
BANDS_ACROSS = 4
SHINGLE_SIZE = 5  # words, or characters
KEYS = 1 + BANDS + BANDS_ACROSS
"""A document's keys: its exact key, then one for each band."""
UNSEGMENTED = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""Languages that put no spaces between words: their shingles are of characters."""
_ALL_PAIRS_UP_TO = 24  # documents of one bucket; larger ones are compared with their leaders only
_PRIME = np.uint64((1 << 61) - 1)
_ROWS_AT_ONCE = 256  # the permuted hashes of so many shingles stay in the cache
_ODD = np.uint64(0x9E3779B97F4A7C15)
_POSITIONS = np.arange(HASHES_PER_BAND)
_ACROSS = (_POSITIONS + HASHES_PER_BAND * np.arange(BANDS_ACROSS)[:, None]) % BANDS
"""The band from which a band across takes the hash at each position: no hash is in two of them."""


def simplified(text: str) -> str:
    """The text without regard to case, space, punctuation and diacritics, as datatrove has it."""
    # datatrove is imported where text is read: comparing what was read before needs none of it
    from datatrove.utils.text import simplify_text

    # ASCII has no diacritics: looking at every character again would take most of the time.
    return str(simplify_text(text, _normalisation(not text.isascii())))


@cache
def _normalisation(diacritics: bool = True) -> Any:
    """Numbers decide what a page of facts or arithmetic says: unlike datatrove's default, keep
    them.
    """
    from datatrove.utils.text import TextNormConfig

    return TextNormConfig(norm_numbers=False, norm_unicode_diacritics=diacritics)


def exact_key(text: str) -> int:
    """64 bits of the simplified text."""
    return xxhash.xxh3_64_intdigest(simplified(text).encode("utf-8", "replace"))


@cache
def _signer(language: str) -> MinhashDedupSignature:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    from stages.text.words import word_tokenizer

    config = MinhashConfig(
        n_grams=SHINGLE_SIZE,
        num_buckets=BANDS,
        hashes_per_bucket=HASHES_PER_BAND,
        norm_config=_normalisation(),
    )
    tokenizer: Any = word_tokenizer(language)
    return MinhashDedupSignature(output_folder=".", config=config, language=tokenizer)


def shingles(text: str, language: str) -> np.ndarray:
    """The set of the text's hashed 5-grams, sorted uint64. A shorter text is one shingle."""
    plain = simplified(text)
    if language.partition("-")[0] in UNSEGMENTED:
        found = np.unique(_character_shingles(plain.replace(" ", "")))
    else:
        signer = _signer(language)
        words = signer.word_tokenizer.word_tokenize(plain)
        grams = zip(*(words[n:] for n in range(SHINGLE_SIZE)), strict=False)
        digest = xxhash.xxh64_intdigest  # datatrove's hash of its 64-bit configuration
        hashes = [digest(" ".join(gram).encode("utf-8", "replace")) for gram in grams]
        found = np.unique(np.asarray(hashes, dtype=np.uint64))
    if found.size == 0:
        return np.asarray([exact_key(text)], dtype=np.uint64)
    return found


def _character_shingles(text: str) -> np.ndarray:
    """A 64-bit hash of every 5 characters: a polynomial, then splitmix64's finalizer."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
    count = len(codes) - SHINGLE_SIZE + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    mixed = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(SHINGLE_SIZE):
            mixed = mixed * _ODD + codes[place : place + count]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def signature(shingle_set: np.ndarray) -> np.ndarray:
    """datatrove's MinHash signature, uint64 [bands, hashes per band].

    The same numbers as its `get_signature`, with the remainder by 2^61 - 1 taken by shifts and the
    shingles taken a few at a time.
    """
    a, b = _signer("en").parameters
    lowest = np.full(a.shape[1], np.iinfo(np.uint64).max, dtype=np.uint64)
    shingle_set = shingle_set.reshape(-1, 1)
    with np.errstate(over="ignore"):  # the permutation is arithmetic modulo 2^64
        for first in range(0, len(shingle_set), _ROWS_AT_ONCE):
            values = shingle_set[first : first + _ROWS_AT_ONCE] * a
            values += b
            high = values >> np.uint64(61)
            values &= _PRIME
            values += high  # at most _PRIME + 7
            reduced = values - _PRIME  # wraps around where it was smaller already
            np.minimum(lowest, np.minimum(values, reduced).min(axis=0), out=lowest)
    return lowest.reshape(BANDS, HASHES_PER_BAND)


def band_keys(shingle_set: np.ndarray) -> list[int]:
    """One 64-bit key per band of the MinHash signature, then one per band across; equal keys make
    candidates.
    """
    hashes = signature(shingle_set)
    rows = np.empty((BANDS + BANDS_ACROSS, HASHES_PER_BAND + 1), dtype=np.uint64)
    rows[:, 0] = np.arange(len(rows))
    rows[:BANDS, 1:] = hashes
    rows[BANDS:, 1:] = hashes[_ACROSS, _POSITIONS]
    return [xxhash.xxh3_64_intdigest(row.tobytes()) for row in rows]


def document_keys(text: str, shingle_set: np.ndarray) -> np.ndarray:
    """The exact key and the band keys of a document, uint64 [KEYS]."""
    return np.asarray([exact_key(text), *band_keys(shingle_set)], dtype=np.uint64)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a & b| / |a | b| of two sorted sets of shingles."""
    if a.size == b.size and np.array_equal(a, b):
        return 1.0
    both = np.intersect1d(a, b, assume_unique=True).size
    return both / (a.size + b.size - both)


def buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of at least two row numbers with the same key, each in ascending order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    for at in np.flatnonzero(np.diff(bounds) > 1).tolist():
        yield order[bounds[at] : bounds[at + 1]]


def verified_edges(
    documents: Sequence[int],
    shingles_of: Callable[[int], np.ndarray],
    threshold: float,
    settled: int = 0,
) -> list[tuple[int, int]]:
    """Edges among the documents of one bucket whose exact Jaccard similarity reaches the threshold.

    Small buckets compare all pairs, but those of two documents below `settled` (both stay anyway).
    In a large one each document is compared with the leaders found so far (documents that no
    earlier leader resembled), which is linear where all are alike. What is compared depends on the
    bucket alone, so the work is the same however many partitions it is cut into.
    """
    edges: list[tuple[int, int]] = []
    ordered = sorted(set(documents))
    all_pairs = len(ordered) <= _ALL_PAIRS_UP_TO
    leaders: list[int] = []
    for document in ordered:
        led = False
        for leader in leaders:
            if all_pairs and document < settled:
                break
            if jaccard(shingles_of(leader), shingles_of(document)) >= threshold:
                edges.append((leader, document))
                led = True
                if not all_pairs:
                    break
        if all_pairs or not led:
            leaders.append(document)
    return edges


def survivors(
    edges: Iterable[tuple[int, int]], similar: Callable[[int, int], bool], settled: int = 0
) -> dict[int, int]:
    """Dropped document -> the document that stays and that it is a near duplicate of.

    In crawl order, a document goes if one that stays is among its neighbours, or is `similar` and
    is what a neighbour went for (in a large bucket not all pairs were compared). Documents below
    `settled` always stay. Edges of whole components, in any order, give the same answer.
    """
    earlier: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        earlier[max(a, b)].add(min(a, b))
    kept_for: dict[int, int] = {}
    for document in sorted(earlier):
        if document < settled:
            continue
        neighbours = earlier[document]
        staying = [other for other in neighbours if other not in kept_for]
        if staying:
            kept_for[document] = min(staying)
            continue
        for candidate in sorted({kept_for[other] for other in neighbours}):
            if similar(candidate, document):
                kept_for[document] = candidate
                break
    return kept_for
