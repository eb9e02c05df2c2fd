"""Words and sentences as datatrove counts them, faster: the same, without spaCy documents.

spaCy cuts a text at whitespace and splits each piece by itself, so a piece's tokens are remembered
and a text becomes dictionary look-ups; sentences follow from the tokens by spaCy's rule-based
sentencizer. Chinese goes to jieba directly, which is what spaCy calls, line by line, because a
line's words do not depend on its neighbours; the stretches between a line's punctuation, which
jieba cuts by themselves, are remembered too. The filters see exactly the tokens and sentences that
they would have seen, so their verdicts do not change; tests compare them.

What is remembered is bounded: the pieces met last, at least so many as `_REMEMBERED` and at most
twice as many. spaCy's own memory of words, which would grow for ever, is left after each text.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from importlib import metadata

import jieba
from datatrove.utils import _import_utils
from datatrove.utils.word_tokenizers import SpaCyTokenizer, WordTokenizer, load_word_tokenizer

from stages.text.light_spacy import Tokenizer

jieba.setLogLevel("ERROR")

_REMEMBERED = 1 << 16
_MARKED = re.compile(r"([A-Za-z]*[a-z])([,;:!?.])")
_ODD_SPACES = re.compile(r"^\s|[^\S ]| {2}|\s$")
_STRETCHES: re.Pattern[str] = jieba.re_han_default
DATATROVE_LANGUAGE = {
    "en": "eng",
    "zh": "cmn",
    "de": "deu",
    "fr": "fra",
    "es": "spa",
    "ru": "rus",
}


def _is_distribution_available(name: str) -> bool | None:
    """What datatrove asks of every tokenizer it makes, without reading all packages' metadata."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return True


_import_utils._is_distribution_available = _is_distribution_available

Token = tuple[str, bool, bool]  # text, is punctuation, may end a sentence


def _sentence_spans(tokens: Iterable[tuple[int, Token]]) -> Iterator[tuple[int, int]]:
    """spaCy's Sentencizer: a sentence ends with the punctuation that follows one of its enders.

    `tokens` come with the places where they begin.
    """
    first = last = -1
    ended = False
    for start, (text, punctuation, ender) in tokens:
        if first < 0:
            first = start
        if ended and not punctuation and not ender:
            yield first, last
            first, ended = start, False
        elif ender:
            ended = True
        last = start + len(text)
    if first >= 0:
        yield first, last


Split = tuple[tuple[str, ...], tuple[Token, ...]]  # the words, and all tokens


class _FastTokenizer(WordTokenizer):
    """What both have in common: the stock tokenizer behind, and what it knows about a piece."""

    def __init__(self, inner: SpaCyTokenizer) -> None:
        super().__init__(inner.language)
        self._inner = inner
        self._enders: frozenset[str] = frozenset(
            inner.tokenizer.get_pipe("sentencizer").punct_chars
        )
        self._known: dict[str, Split] = {}
        self._older: dict[str, Split] = {}

    @abstractmethod
    def _split(self, piece: str) -> Split:
        """How spaCy splits it."""

    def _remember(self, pieces: Sequence[str]) -> dict[str, Split]:
        """What is known, which holds these pieces now."""
        if len(self._known) >= _REMEMBERED:
            self._older, self._known = self._known, {}
        known = self._known
        new = [piece for piece in pieces if piece not in known]
        if new:
            with self._inner.tokenizer.memory_zone():
                for piece in new:
                    known[piece] = self._older.get(piece) or self._split(piece)
        return known

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        if _ODD_SPACES.search(text) or not text:  # spaces that are tokens themselves
            with self._inner.tokenizer.memory_zone():
                return self._inner.span_tokenize(text)
        return list(_sentence_spans(self._placed(text)))

    @abstractmethod
    def _placed(self, text: str) -> Iterator[tuple[int, Token]]:
        """Where each token begins."""

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:stop].strip() for start, stop in self.span_tokenize(text)]


class RememberingTokenizer(_FastTokenizer):
    """A datatrove spaCy tokenizer that remembers how each whitespace-free piece splits."""

    def __init__(self, inner: SpaCyTokenizer) -> None:
        super().__init__(inner)
        self._exceptions = frozenset(inner.tokenizer.tokenizer.rules)

    def _split(self, piece: str) -> Split:
        # English letters alone match no affix rule, unless an exception splits them.
        plain = self.language == "en" and piece not in self._exceptions
        if plain and piece.isascii() and piece.isalpha():
            return (piece,), ((piece, False, False),)
        if plain and (marked := _MARKED.fullmatch(piece)) and marked[1] not in self._exceptions:
            word, mark = marked.groups()
            return (word, mark), ((word, False, False), (mark, True, mark in self._enders))
        tokens = tuple(
            (token.text, token.is_punct, token.text in self._enders)
            for token in self._inner.tokenizer.tokenizer(piece)
        )
        return tuple(word for word, _, _ in tokens if word.strip()), tokens

    def word_tokenize(self, text: str) -> list[str]:
        pieces = text.split()
        known = self._remember(pieces)
        words: list[str] = []
        for piece in pieces:
            words += known[piece][0]
        return words

    def _placed(self, text: str) -> Iterator[tuple[int, Token]]:
        pieces = text.split(" ")
        known = self._remember(pieces)
        at = 0
        for piece in pieces:
            for token in known[piece][1]:
                yield at, token
                at += len(token[0])
            at += 1


@lru_cache(maxsize=1 << 15)
def _cut_stretch(stretch: str) -> tuple[str, ...]:
    return tuple(jieba.cut(stretch))


@lru_cache(maxsize=2048)
def _cut(line: str) -> tuple[str, ...]:
    """jieba's words of a line: its own first step is to split at what can be in no word."""
    return tuple(
        word for stretch in _STRETCHES.split(line) if stretch for word in _cut_stretch(stretch)
    )


class JiebaTokenizer(_FastTokenizer):
    """Chinese words by jieba, sentences by spaCy's rule over them."""

    def _split(self, piece: str) -> Split:
        punctuation = self._inner.tokenizer.vocab[piece].is_punct
        return (piece,), ((piece, punctuation, piece in self._enders),)

    def word_tokenize(self, text: str) -> list[str]:
        return [
            word for line in text.split("\n") for token in _cut(line) if (word := token.strip())
        ]

    def _placed(self, text: str) -> Iterator[tuple[int, Token]]:
        words = _cut(text)
        known = self._remember(words)
        at = 0
        for word in words:
            if word != " ":  # it belongs to the token before
                yield at, known[word][1][0]
            at += len(word)


@cache
def word_tokenizer(language: str) -> WordTokenizer:
    """The tokenizer of an ISO 639-1 language, with datatrove's assignment behind it."""
    stock = load_word_tokenizer(DATATROVE_LANGUAGE.get(language, language))
    if not isinstance(stock, SpaCyTokenizer):
        return stock
    stock = SpaCyTokenizer(stock.language)  # the one loaded is everybody's
    if language == "zh":
        return JiebaTokenizer(stock)
    by_pieces = type(stock.tokenizer.tokenizer) is Tokenizer  # others look across whitespace
    return RememberingTokenizer(stock) if by_pieces else stock
