"""Both of Gopher's filters with datatrove's verdicts in a fraction of its time.

The rules and their order are datatrove's (Rae et al. 2021, table A1 and section A.1.1). N-grams are
found by a rolling hash over all places at once; wherever two hashes are equal, the texts themselves
are compared, so no verdict hangs on a hash. Words are judged once each, not once a place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import PUNCTUATION_SET, split_into_words

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


def _powers(base: int, count: int) -> np.ndarray:
    """base^0, base^1, ... modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


@lru_cache(maxsize=4)
def _tables(log_size: int) -> tuple[np.ndarray, np.ndarray]:
    return _powers(_BASE, 1 << log_size), _powers(_INVERSE, 1 << log_size)


class Ngrams:
    """The runs of words of a text, with `joint` between the words.

    `places(size)` are those whose text may occur twice; `at(place, size)` is the text itself.
    """

    def __init__(self, words: Sequence[str], joint: str) -> None:
        self.count = len(words)
        self._joint = len(joint)
        self._text = joint.join(words)
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=self.count) + self._joint
        self._starts = np.concatenate(([0], np.cumsum(lengths)))
        codes = np.frombuffer(self._text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        powers, self._inverse = _tables(max(16, int(codes.size).bit_length()))
        weighted = (codes.astype(np.uint64) + np.uint64(1)) * powers[: codes.size]
        self._sums = np.concatenate(([np.uint64(0)], np.cumsum(weighted, dtype=np.uint64)))

    def spans(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each run of `size` words begins and ends in the joined text."""
        runs = max(0, self.count - size + 1)
        return self._starts[:runs], self._starts[size : size + runs] - self._joint

    def places(self, size: int) -> np.ndarray:
        """The runs whose hash another run has too, ascending; empty where all texts differ."""
        starts, stops = self.spans(size)
        hashes = (self._sums[stops] - self._sums[starts]) * self._inverse[starts]
        order = np.argsort(hashes)
        equal = np.flatnonzero(np.diff(hashes[order]) == 0)
        if not equal.size:
            return equal
        repeated = np.zeros(hashes.size, dtype=bool)
        repeated[order[equal]] = repeated[order[equal + 1]] = True
        return np.flatnonzero(repeated)

    def at(self, places: np.ndarray, size: int) -> list[str]:
        """The texts of these runs."""
        starts, stops = self.spans(size)
        spans = zip(starts[places].tolist(), stops[places].tolist(), strict=True)
        return [self._text[start:stop] for start, stop in spans]


def top_duplicate_chars(grams: Ngrams, size: int) -> int:
    """Length of the most frequent n-gram (the first of equals) times its count; 0 if none.

    `grams` joins words with a space.
    """
    if grams.count < size:
        return 0
    places = grams.places(size)
    counted = Counter(grams.at(places, size))
    gram, count = max(counted.items(), key=lambda item: item[1], default=("", 1))
    if count == 1:
        (gram,) = grams.at(np.zeros(1, dtype=np.int64), size)
    return len(gram) * count


def duplicate_chars(grams: Ngrams, size: int, enough: float = -1.0) -> int:
    """Characters in n-grams that occurred before, none counted twice: after one, the next begins
    behind it. `grams` joins words without a space. Where there cannot be more than `enough`, the
    answer may be any number up to it.
    """
    places = grams.places(size)
    if not places.size:
        return 0
    starts, stops = grams.spans(size)
    if int((stops[places] - starts[places]).sum()) <= enough:
        return 0
    seen: set[str] = set()
    chars = free = 0
    for place, gram in zip(places.tolist(), grams.at(places, size), strict=True):
        if place < free:
            continue
        if gram in seen:
            chars += len(gram)
            free = place + size
        else:
            seen.add(gram)
    return chars


class RepetitionFilter(GopherRepetitionFilter):
    """`GopherRepetitionFilter` with the same settings, verdicts and reasons."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or False with the rule that refuses."""
        text = doc.text
        if not text:
            return False, "empty"
        reason = self._repeated_lines(text) or self._repeated_ngrams(text)
        return (False, reason) if reason else True

    def _repeated_lines(self, text: str) -> str:
        paragraphs = self.paragraph_exp.split(text.strip())
        count, chars = find_duplicates(paragraphs)
        if self.dup_para_frac and count / len(paragraphs) > self.dup_para_frac:
            return "dup_para_frac"
        if self.dup_para_char_frac and chars / len(text) > self.dup_para_char_frac:
            return "dup_para_char_frac"
        lines = self._line_splitter.split(text)
        count, chars = find_duplicates(lines)
        if self.dup_line_frac and count / len(lines) > self.dup_line_frac:
            return "dup_line_frac"
        if self.dup_line_char_frac and chars / len(text) > self.dup_line_char_frac:
            return "dup_line_char_frac"
        return ""

    def _repeated_ngrams(self, text: str) -> str:
        words = split_into_words(text, self.language)
        if not words:
            return ""
        if self.top_n_grams:
            spaced = Ngrams(words, " ")
            for size, share in self.top_n_grams:
                if top_duplicate_chars(spaced, size) / len(text) > share:
                    return f"top_{size}_gram"
        if self.dup_n_grams:
            joined = Ngrams(words, "")
            for size, share in self.dup_n_grams:
                # A little less than the limit, so that rounding cannot decide.
                enough = (share - 1e-9) * len(text)
                if duplicate_chars(joined, size, enough) / len(text) > share:
                    return f"duplicated_{size}_n_grams"
        return ""


@lru_cache(maxsize=1 << 17)
def _judge_word(word: str) -> tuple[bool, bool]:
    """Whether any character is no punctuation, and whether any is a letter."""
    if word.isalpha() and word.isascii():
        return True, True
    return not PUNCTUATION_SET.issuperset(word), any(map(str.isalpha, word))


class QualityFilter(GopherQualityFilter):
    """`GopherQualityFilter` with the same settings, verdicts and reasons."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or False with the rule that refuses."""
        text = doc.text
        words = split_into_words(text, self.language)
        counted = Counter(words)
        plain = plain_chars = alphabetic = 0
        for word, count in counted.items():
            says, letters = _judge_word(word)
            if says:
                plain += count
                plain_chars += count * len(word)
            if letters:
                alphabetic += count
        reason = (
            self._size(plain, plain_chars)
            or self._symbols(text, len(words))
            or self._lines(text.splitlines())
            or self._words(alphabetic / len(words) if words else 0.0, counted)
        )
        return (False, reason) if reason else True

    def _size(self, plain: int, chars: int) -> str:
        if self.min_doc_words and plain < self.min_doc_words:
            return "gopher_short_doc"
        if self.max_doc_words and plain > self.max_doc_words:
            return "gopher_long_doc"
        mean = chars / plain if plain else float("nan")  # as numpy's mean of nothing
        if self.min_avg_word_length and mean < self.min_avg_word_length:
            return "gopher_below_avg_threshold"
        if self.max_avg_word_length and mean > self.max_avg_word_length:
            return "gopher_above_avg_threshold"
        return ""

    def _symbols(self, text: str, words: int) -> str:
        if self.max_symbol_word_ratio and text.count("#") / words > self.max_symbol_word_ratio:
            return "gopher_too_many_hashes"
        ellipses = text.count("...") + text.count("…")
        if self.max_symbol_word_ratio and ellipses / words > self.max_symbol_word_ratio:
            return "gopher_too_many_ellipsis"
        return ""

    def _lines(self, lines: Sequence[str]) -> str:
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
        if self.max_bullet_lines_ratio and bullets / len(lines) > self.max_bullet_lines_ratio:
            return "gopher_too_many_bullets"
        ends = sum(line.rstrip().endswith(("...", "…")) for line in lines)
        if self.max_ellipsis_lines_ratio and ends / len(lines) > self.max_ellipsis_lines_ratio:
            return "gopher_too_many_end_ellipsis"
        return ""

    def _words(self, alphabetic: float, counted: Counter[str]) -> str:
        if self.max_non_alpha_words_ratio and alphabetic < self.max_non_alpha_words_ratio:
            return "gopher_below_alpha_threshold"
        if self.min_stop_words:
            found = sum(word in counted for word in self.stop_words)
            if found < self.min_stop_words:
                return "gopher_enough_stop_words"
        return ""
