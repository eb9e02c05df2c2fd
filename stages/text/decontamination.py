"""Finding evaluation questions in training text: exactly, and nearly.

Texts are compared as tokens: words in lower case, numbers, and single Han, kana or hangul
characters; punctuation (also between a number's thousands), case, width and space do not count.
What tells a question from the training questions of its kind are its own trigrams: those that no
training question has. A document is contaminated by an evaluation text when

* exact: it contains the whole of it; of a text of `LONG_WORDS` words or more any run of
  `EXACT_WORDS` (13, as GPT-3 did) is enough, if one of the text's own trigrams is in it;
* near: around one of them, a stretch as long as the text holds at least `NEAR_SHARE` of all its
  trigrams and of its own ones, and all of its numbers in their order. A text of fewer than
  `NEAR_WORDS` words with fewer than two numbers is only looked for exactly: one word more or less
  makes another question of it.

Texts of fewer than `MIN_TOKENS` tokens say too little to be found ("What is 2?") and are counted in
the certificate as not searched. A trigram that more than `COMMON` evaluation texts share is
template too. The index is built once in every worker, and each searches its own documents: nothing
is held in one process.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

EXACT_WORDS = 13
LONG_WORDS = 2 * EXACT_WORDS
NEAR_SHARE = 0.7
MIN_TOKENS = 5
NEAR_WORDS = 14
COMMON = 24
_CHARACTERS_PER_WORD = 1.6  # of Chinese: jieba's words in running text
_TOKEN = re.compile(
    r"\d+|[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)

_THOUSANDS = re.compile(r"(?<=\d)[, ](?=\d{3}(?!\d))")

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
    return _TOKEN.findall(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text).lower()))


def _trigrams(sequence: Sequence[str]) -> Iterable[Gram]:
    return zip(sequence, sequence[1:], sequence[2:], strict=False)


@dataclass(frozen=True, slots=True)
class _Question:
    """An evaluation text as it is compared."""

    tokens: list[str]
    trigrams: Counter[Gram]
    own: Counter[Gram]
    numbers: list[str]
    near: bool
    """Whether something that only resembles it counts."""


def _words(sequence: Sequence[str]) -> float:
    """How many words a text has; characters of scripts without spaces are less than one each."""
    single = sum(len(token) == 1 and token >= "\u3041" for token in sequence)
    return len(sequence) - single + single / _CHARACTERS_PER_WORD


class Decontaminator:
    """Searches documents for evaluation texts; `training` questions show what is only template."""

    def __init__(self, evaluation: Sequence[str], training: Iterable[str] = ()) -> None:
        sequences = [tokens(text) for text in evaluation]
        shared: set[Gram] = set()
        for question in training:
            shared.update(_trigrams(tokens(question)))
        spread = Counter(gram for sequence in sequences for gram in set(_trigrams(sequence)))
        shared.update(gram for gram, count in spread.items() if count > COMMON)
        self._questions: list[_Question] = []
        self._seeds: dict[Gram, list[tuple[int, int]]] = defaultdict(list)
        self.not_searched = 0
        for number, sequence in enumerate(sequences):
            grams = list(_trigrams(sequence))
            own = [(at, gram) for at, gram in enumerate(grams) if gram not in shared]
            numbers = [token for token in sequence if token.isdigit()]
            near = bool(own) and (_words(sequence) >= NEAR_WORDS or len(numbers) >= 2)
            counted = Counter(gram for _, gram in own)
            self._questions.append(_Question(sequence, Counter(grams), counted, numbers, near))
            if len(sequence) < MIN_TOKENS:
                self.not_searched += 1
                continue
            for at, gram in own or [(0, grams[0])]:
                self._seeds[gram].append((number, at))

    def find(self, document: str) -> Hit | None:
        """The first evaluation text found in the document, exactly if there is one, else nearly."""
        sequence = tokens(document)
        places: dict[int, set[int]] = defaultdict(set)
        met: dict[int, set[Gram]] = defaultdict(set)
        for at, gram in enumerate(_trigrams(sequence)):
            for number, place in self._seeds.get(gram, ()):
                places[number].add(at - place)
                met[number].add(gram)
        for number in sorted(places):
            text = self._questions[number].tokens
            if any(_is_exact(text, sequence, start) for start in sorted(places[number])):
                return Hit(number, "exact", 1.0)
        for number in sorted(places):
            question = self._questions[number]
            anywhere = sum(question.own[gram] for gram in met[number])
            if not question.near or anywhere < NEAR_SHARE * question.own.total():
                continue  # so in no stretch either
            share = max(_near_share(question, sequence, start) for start in places[number])
            if share >= NEAR_SHARE:
                return Hit(number, "near", share)
        return None


def _is_exact(text: list[str], sequence: list[str], start: int) -> bool:
    """The whole text at `start`, or of a long text a run of EXACT_WORDS equal words there."""
    if _words(text) < LONG_WORDS:
        return start >= 0 and sequence[start : start + len(text)] == text
    run: list[str] = []
    for at in range(max(0, -start), min(len(text), len(sequence) - start)):
        if text[at] != sequence[start + at]:
            run.clear()
            continue
        run.append(text[at])
        if len(run) >= EXACT_WORDS and _words(run) >= EXACT_WORDS:
            return True
    return False


def _near_share(question: _Question, sequence: list[str], start: int) -> float:
    """Share of the text's trigrams in the stretch around `start`; 0 where its numbers are not."""
    slack = max(2, len(question.tokens) // 8)
    window = sequence[max(0, start - slack) : max(0, start + len(question.tokens) + slack)]
    if not _in_order(question.numbers, [token for token in window if token.isdigit()]):
        return 0.0
    found = Counter(_trigrams(window))
    shares = (
        (wanted & found).total() / wanted.total() for wanted in (question.trigrams, question.own)
    )
    return min(shares)


def _in_order(wanted: list[str], found: list[str]) -> bool:
    """Whether `wanted` is a contiguous part of `found`."""
    size = len(wanted)
    return any(found[at : at + size] == wanted for at in range(len(found) - size + 1))


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
            "exact_words": EXACT_WORDS,
            "near_share_of_trigrams": NEAR_SHARE,
            "near_numbers": "all, in order",
            "templates": "trigrams of training questions",
            "near_words": NEAR_WORDS,
            "min_tokens": MIN_TOKENS,
        },
        "documents_dropped": dict(sorted(hits.items())),
    }
