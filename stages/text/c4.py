"""C4's and FineWeb's filters with datatrove's verdicts in a fraction of its time.

The rules and their order are datatrove's (Raffel et al. 2020, section 2.2; Penedo et al. 2024,
section 3.5). Sentences are counted only until there are enough, words only where a bound does not
decide already.
"""

from __future__ import annotations

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters.c4_filters import (
    CITATION_REGEX,
    ELLIPSIS,
    END_PUNCTUATION,
    POLICY_SUBSTRINGS,
)
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates
from datatrove.utils.text import split_into_sentences, split_into_words

_LOREM, _JAVASCRIPT = "lorem ipsum", "javascript"


class C4Filter(C4QualityFilter):
    """`C4QualityFilter` with the same settings, verdicts, reasons and remaining text."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep what is left of the lines, or False with the rule that refuses."""
        if not self.split_paragraph:
            answer: bool | tuple[bool, str] = super().filter(doc)
            return answer
        said = _phrases_in(doc.text)
        sentences, kept = 0, []
        for line in doc.text.splitlines():
            line = line.strip()
            words = line.split()
            if self._too_long(line, words):
                continue
            if self.remove_citations and "[" in line:
                line = CITATION_REGEX.sub("", line)
            if self.filter_no_terminal_punct and (
                not line.endswith(END_PUNCTUATION) or line.endswith(ELLIPSIS)
            ):
                continue
            if len(words) < self.min_words_per_line:
                continue
            found = {phrase for phrase in said if phrase in line.lower()}
            if self.filter_lorem_ipsum and _LOREM in found:
                return False, "lorem_ipsum"
            if self.filter_javascript and _JAVASCRIPT in found:
                continue
            if self.filter_curly_bracket and "{" in line:
                return False, "curly_bracket"
            if self.filter_policy and not found.isdisjoint(POLICY_SUBSTRINGS):
                continue
            if sentences < self.min_num_sentences:
                sentences += len(split_into_sentences(line, self.language))
            kept.append(line)
        if sentences < self.min_num_sentences:
            return False, "too_few_sentences"
        doc.text = "\n".join(kept).strip()
        return True

    def _too_long(self, line: str, words: list[str]) -> bool:
        limit = self.max_word_length
        return limit != -1 and len(line) > limit and any(len(word) > limit for word in words)


def _phrases_in(text: str) -> list[str]:
    """The phrases that may stand in some line, with or without its citations."""
    lower = text.lower()
    if "[" in lower:
        lower += "\n" + CITATION_REGEX.sub("", lower)
    return [phrase for phrase in (_LOREM, _JAVASCRIPT, *POLICY_SUBSTRINGS) if phrase in lower]


class FineWebFilter(FineWebQualityFilter):
    """`FineWebQualityFilter` with the same settings, verdicts and reasons."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep, or False with the rule that refuses."""
        lines = [line for line in doc.text.split("\n") if line.strip()]
        if not lines:
            return False, "empty"
        ended = sum(line.endswith(self.stop_chars) for line in lines) / len(lines)
        if ended < self.line_punct_thr and not (ended == 0 and self.line_punct_exclude_zero):
            return False, "line_punct_ratio"
        short = sum(len(line) <= self.short_line_length for line in lines) / len(lines)
        if short > self.short_line_threshold:
            return False, "short_line_ratio"
        breaks = doc.text.count("\n")
        if find_duplicates(lines)[1] / (len(doc.text) - breaks) > self.char_duplicates_ratio:
            return False, "char_dup_ratio"
        # A word never spans white space, so there are at least as many words as pieces.
        if breaks > self.new_line_ratio * len(doc.text.split()):
            words = split_into_words(doc.text, self.language)
            if breaks / len(words) > self.new_line_ratio:
                return False, "list_ratio"
        return True
