"""Finding evaluation questions in training text: exactly, and nearly.

Texts are compared as tokens: words in lower case, numbers, and single Han, kana or hangul
characters; punctuation, case and space do not count. A document is contaminated by an evaluation
text when

* exact: it contains a run of `EXACT_TOKENS` (13, as GPT-3 did) consecutive tokens of it, or the
  whole of it where it is shorter; runs that training questions share (templates) do not count;
* near: some window as long as the text holds at least `NEAR_SHARE` of its token trigrams and all of
  its numbers.

Texts of fewer than `MIN_TOKENS` tokens say too little to be found ("What is 2?") and are listed in
the certificate as not searched.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

EXACT_TOKENS = 13
NEAR_SHARE = 0.7
MIN_TOKENS = 5
_SEED_TOKENS = 3
_TOKEN = re.compile(
    r"\d+|[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """Which evaluation text was found, and how: "exact" or "near" with the share of trigrams."""

    text: int
    how: str
    share: float


def tokens(text: str) -> list[str]:
    """What is compared: words in lower case, numbers, single characters of scripts without
    spaces.
    """
    return _TOKEN.findall(text.lower())


def _grams(sequence: Sequence[str], n: int) -> Iterable[Gram]:
    return zip(*(sequence[i:] for i in range(n)), strict=False)


class Decontaminator:
    """Searches documents for a fixed set of evaluation texts; `training` gives texts that are no
    leak.
    """

    def __init__(self, evaluation: Sequence[str], training: Iterable[str] = ()) -> None:
        self.texts = [tokens(text) for text in evaluation]
        shared: set[Gram] = set()
        wanted = {len(text) for text in self.texts if len(text) < EXACT_TOKENS} | {EXACT_TOKENS}
        for question in training:
            sequence = tokens(question)
            for n in wanted:
                shared.update(_grams(sequence, n))
        self._exact: dict[int, dict[Gram, int]] = defaultdict(dict)
        self._seeds: dict[Gram, list[tuple[int, int]]] = defaultdict(list)
        self._trigrams: list[Counter[Gram]] = []
        self._numbers: list[Counter[str]] = []
        self.not_searched = 0
        for number, text in enumerate(self.texts):
            self._trigrams.append(Counter(_grams(text, _SEED_TOKENS)))
            self._numbers.append(Counter(t for t in text if t.isdigit()))
            if len(text) < MIN_TOKENS:
                self.not_searched += 1
                continue
            n = min(EXACT_TOKENS, len(text))
            for gram in _grams(text, n):
                if gram not in shared:
                    self._exact[n].setdefault(gram, number)
            for at, gram in enumerate(_grams(text, _SEED_TOKENS)):
                self._seeds[gram].append((number, at))

    def find(self, document: str) -> Hit | None:
        """The first evaluation text found in the document, exactly if there is one, else nearly."""
        sequence = tokens(document)
        for n, known in self._exact.items():
            for gram in _grams(sequence, n):
                if gram in known:
                    return Hit(known[gram], "exact", 1.0)
        return self._find_near(sequence)

    def _find_near(self, sequence: list[str]) -> Hit | None:
        """Trigram hits vote for (text, alignment); alignments with enough votes are compared in
        full.
        """
        votes: Counter[tuple[int, int]] = Counter()
        for at, gram in enumerate(_grams(sequence, _SEED_TOKENS)):
            for number, place in self._seeds.get(gram, ()):
                votes[(number, (at - place) // 4)] += 1
        for (number, coarse), count in sorted(votes.items()):
            text = self.texts[number]
            total = max(1, len(text) - _SEED_TOKENS + 1)
            if count < NEAR_SHARE / 3 * total:  # shifted by edits, the votes spread over neighbours
                continue
            first = max(0, coarse * 4 - 4)
            window = sequence[first : coarse * 4 + len(text) + 8]
            share = (self._trigrams[number] & Counter(_grams(window, _SEED_TOKENS))).total() / total
            if share >= NEAR_SHARE and not self._numbers[number] - Counter(window):
                return Hit(number, "near", share)
        return None


def certificate(
    decontaminator: Decontaminator, evaluation: Sequence[str], hits: Counter[str]
) -> dict[str, Any]:
    """What was searched, how, and what was found: goes with the corpus for the evaluation
    to check.
    """
    digest = hashlib.sha256("\0".join(sorted(evaluation)).encode()).hexdigest()
    return {
        "texts": len(evaluation),
        "texts_sha256": digest,
        "not_searched": decontaminator.not_searched,
        "method": {
            "exact_tokens": EXACT_TOKENS,
            "near_share_of_trigrams": NEAR_SHARE,
            "near_numbers": "all",
            "min_tokens": MIN_TOKENS,
        },
        "documents_dropped": dict(sorted(hits.items())),
    }
