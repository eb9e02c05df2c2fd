"""Repeated spans: stretches of at least so many words that an earlier document has word for word.

Lee et al. 2022 (arXiv:2107.06499) find them with a suffix array over the whole corpus; here every
window of `words` words is a hash that goes to a partition, where all but its first place in crawl
order are marked. Marked windows overlap where a longer stretch is repeated, so their union is
exactly the repeated text, and no step sees more than one partition. A window has 64 bits: of a
trillion windows some ten thousand would collide.

A place is one integer: the document's number, then the window's first word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xxhash

PLACE_BITS = 24
"""Words of a document that can be told apart; those behind are left as they are."""
_FACTOR = 0x9E3779B97F4A7C15
_ALONE = r"\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af"
_SINGLE = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def word_places(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word; of each character where words have no spaces between them."""
    return [match.span() for match in _SINGLE.finditer(text)][: 1 << PLACE_BITS]


def window_hashes(text: str, words: int) -> np.ndarray:
    """uint64, one for each window of so many words."""
    places = word_places(text)
    count = len(places) - words + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    digest = xxhash.xxh3_64_intdigest
    hashes = np.asarray(
        [digest(text[a:b].lower().encode("utf-8", "replace")) for a, b in places], dtype=np.uint64
    )
    mixed = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for at in range(words):
            mixed = mixed * np.uint64(_FACTOR) + hashes[at : at + count]
    return mixed ^ (mixed >> np.uint64(32))


def repeated(hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The places whose hash an earlier place has, sorted."""
    if not places.size:
        return places
    order = np.lexsort((places, hashes))
    hashes, places = hashes[order], places[order]
    again = np.r_[False, hashes[1:] == hashes[:-1]]
    return np.sort(places[again])


def without_spans(text: str, first_words: Sequence[int], words: int) -> str:
    """The text without the windows that begin at these words."""
    places = word_places(text)
    gone = np.zeros(len(places) + 1, dtype=np.int64)
    for first in first_words:
        gone[first] += 1
        gone[min(first + words, len(places))] -= 1
    inside = np.cumsum(gone)[:-1] > 0
    edges = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(np.int8)))
    kept, at = [], 0
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        kept.append(text[at : places[start][0]].rstrip(" "))
        at = places[stop - 1][1]
    kept.append(text[at:])
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).strip()
