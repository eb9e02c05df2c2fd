"""Quality verdicts: datatrove's Gopher, C4 and FineWeb filters, with settings per language.

The filters are datatrove's own classes with our word tokenizer put in; the order is the cheapest
first, as FineWeb runs them. English uses datatrove's defaults, and like FineWeb keeps C4's lines
without terminal punctuation. Other languages take their stop words from spaCy and allow for shorter
and longer words. Chinese differs where the defaults measure English (every change is named below):

* a word by jieba has 1-2 characters, so mean word length may be 1 to 6 instead of 3 to 10;
* jieba counts punctuation as words, so 55 % of them must hold a letter instead of 80 %;
* stop words are Chinese, in both scripts; pages of 30 words are long enough;
* C4 splits lines at spaces and ends them with ASCII punctuation: its rules on words per line,
  longest word and terminal punctuation are off, and 3 sentences are enough; a curly bracket is no
  reason (FineWeb-2 has no such rule either): manuals show configuration;
* five words are 8 characters, a third of what they are in English, so an ordinary term of the
  subject is an n-gram: about twice as many may be repeated;
* lines may be short, as in FineWeb-2 (verse and dialogue are); one in 17 need end a sentence
  instead of one in 8 (code stands between the sentences of a lesson); and repeated lines may make
  up 20 % of the page instead of 1 % (a heading that also stands in the contents weighs more where
  a page has fewer characters).

The other languages that are written without spaces get the same where it holds for them.

"prose" is for documentation that no crawl's boilerplate surrounds: length, letters and gross
repetition only (a reference repeats the phrases of its parameters on every page).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, cast

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter

from cluster.errors import UserError
from stages.text.c4 import C4Filter, FineWebFilter
from stages.text.gopher import QualityFilter, RepetitionFilter
from stages.text.words import word_tokenizer

Profile = Literal["web", "prose", "none"]
Overrides = Mapping[str, Mapping[str, Any]]

FILTERS: dict[str, type[BaseFilter]] = {
    "gopher_repetition": RepetitionFilter,
    "gopher_quality": QualityFilter,
    "c4": C4Filter,
    "fineweb": FineWebFilter,
}
STOCK: dict[str, type[BaseFilter]] = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
"""datatrove's own class behind each filter: what ours are compared with."""
_CHINESE_STOP_WORDS = list("的了在是和有不这也就都与为等中一這與為個们們个对對")
_EUROPEAN: dict[str, dict[str, Any]] = {"c4": {"filter_no_terminal_punct": False}}
_WITHOUT_SPACES: dict[str, dict[str, Any]] = {
    "gopher_repetition": {
        "top_n_grams": ((2, 0.25), (3, 0.22), (4, 0.2)),
        "dup_n_grams": ((5, 0.3), (6, 0.27), (7, 0.25), (8, 0.23), (9, 0.21), (10, 0.19)),
    },
    "gopher_quality": {
        "min_doc_words": 30,
        "min_avg_word_length": 1,
        "max_avg_word_length": 6,
        "max_non_alpha_words_ratio": 0.55,
    },
    "c4": {
        "filter_no_terminal_punct": False,
        "min_words_per_line": -1,
        "max_word_length": -1,
        "min_num_sentences": 3,
        "filter_curly_bracket": False,
    },
    "fineweb": {"short_line_thr": 1.0, "line_punct_thr": 0.06, "char_duplicates_ratio": 0.2},
}
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "km", "lo", "my", "bo"})
_LEAST_STOP_WORDS = 20  # a shorter list says too little about a page

_PROSE: dict[str, dict[str, Any]] = {
    "gopher_repetition": {
        "dup_line_frac": 0.5,
        "dup_para_frac": 0.5,
        "dup_line_char_frac": 0.4,
        "dup_para_char_frac": 0.4,
        "dup_n_grams": ((5, 0.45), (10, 0.4)),
    },
    "gopher_quality": {
        "max_symbol_word_ratio": None,
        "max_bullet_lines_ratio": None,
        "max_non_alpha_words_ratio": 0.4,
        "min_avg_word_length": 2,
        "min_stop_words": 1,
    },
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kept`, or the filter and the reason it gave. `text` is what is left: C4 drops single
    lines.
    """

    kept: bool
    text: str
    filter: str = ""
    reason: str = ""


def settings(
    language: str, profile: Profile, overrides: Overrides | None = None
) -> dict[str, dict[str, Any]]:
    """Filter -> arguments, in the order they run, for a language and a profile."""
    if profile == "none":
        return {}
    if profile == "prose":
        chosen = {name: dict(_PROSE[name]) for name in _PROSE}
        if language in WITHOUT_SPACES:
            chosen["gopher_quality"] |= _of_language(language)["gopher_quality"]
    else:
        base = _of_language(language)
        chosen = {name: dict(base.get(name, {})) for name in FILTERS}
    for name, arguments in (overrides or {}).items():
        if name in chosen:
            chosen[name] |= arguments
    return chosen


@lru_cache(maxsize=256)
def _of_language(language: str) -> dict[str, dict[str, Any]]:
    """What differs from datatrove's defaults."""
    if language == "en":
        return _EUROPEAN
    words = stop_words(language)
    known: dict[str, Any] = {"stop_words": words} if words else {"min_stop_words": None}
    if language in WITHOUT_SPACES:
        base = _WITHOUT_SPACES
    else:
        base = _EUROPEAN | {"gopher_quality": {"min_avg_word_length": 2, "max_avg_word_length": 15}}
    return base | {"gopher_quality": base["gopher_quality"] | known}


def stop_words(language: str) -> list[str]:
    """The language's stop words: spaCy's, ours for Chinese; [] where there is no list."""
    if language == "zh":
        return _CHINESE_STOP_WORDS
    try:
        listed = import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS
    except ImportError:
        return []
    return sorted(listed) if len(listed) >= _LEAST_STOP_WORDS else []


def check_overrides(overrides: Mapping[str, Overrides]) -> None:
    """language -> filter -> arguments; an unknown filter or argument is a UserError."""
    for language, filters in overrides.items():
        for name, arguments in filters.items():
            if name not in FILTERS:
                raise UserError(
                    f"quality.{language}.{name}: no such filter; there are {', '.join(FILTERS)}"
                )
            known = set(inspect.signature(STOCK[name].__init__).parameters)
            known -= {"self", "exclusion_writer", "language"}
            for argument in set(arguments) - known:
                raise UserError(
                    f"quality.{language}.{name}.{argument}: datatrove's {STOCK[name].__name__}"
                    f" has no such setting; it has {', '.join(sorted(known))}"
                )


class QualityFilters:
    """The filters of every language met so far, made once each."""

    def __init__(self, overrides: Mapping[str, Overrides] | None = None) -> None:
        self._overrides = overrides or {}
        self._filters: dict[tuple[str, Profile], list[tuple[str, BaseFilter]]] = {}

    def verdict(self, text: str, language: str, profile: Profile = "web") -> Verdict:
        """Run the filters in order; the first that refuses decides."""
        document = Document(text=text, id="")
        for name, quality_filter in self._of(language, profile):
            answer = quality_filter.filter(document)
            kept, reason = answer if isinstance(answer, tuple) else (answer, "")
            if not kept:
                return Verdict(False, text, name, reason or "refused")
        return Verdict(True, document.text)

    def _of(self, language: str, profile: Profile) -> list[tuple[str, BaseFilter]]:
        key = (language, profile)
        if key not in self._filters:
            tokenizer = cast(Any, word_tokenizer(language))
            chosen = settings(language, profile, self._overrides.get(language))
            self._filters[key] = [
                (name, FILTERS[name](language=tokenizer, **arguments))
                for name, arguments in chosen.items()
            ]
        return self._filters[key]
