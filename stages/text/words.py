"""Words as datatrove counts them, faster: the same tokens, without building a spaCy document.

spaCy cuts a text at whitespace and splits each piece by itself, so a piece's tokens are remembered
and a text becomes dictionary look-ups. Chinese goes to jieba directly, which is what spaCy calls.
The filters see exactly the tokens they would have seen, so their verdicts do not change; tests
compare them.
"""

from __future__ import annotations

from functools import cache

import jieba
from datatrove.utils.word_tokenizers import SpaCyTokenizer, WordTokenizer, load_word_tokenizer
from spacy.tokenizer import Tokenizer

_REMEMBERED_PIECES = 1 << 18
DATATROVE_LANGUAGE = {"en": "eng", "zh": "cmn", "de": "deu", "fr": "fra", "es": "spa", "ru": "rus"}


class RememberingTokenizer(WordTokenizer):
    """A datatrove spaCy tokenizer that remembers how each whitespace-free piece splits."""

    def __init__(self, inner: SpaCyTokenizer) -> None:
        super().__init__(inner.language)
        self._inner = inner
        self._nlp = inner.tokenizer
        self._pieces: dict[str, tuple[str, ...]] = {}

    def _split(self, piece: str) -> tuple[str, ...]:
        with self._nlp.memory_zone():
            tokens = tuple(t.text.strip() for t in self._nlp.tokenizer(piece) if t.text.strip())
        if len(self._pieces) >= _REMEMBERED_PIECES:
            self._pieces.clear()
        self._pieces[piece] = tokens
        return tokens

    def word_tokenize(self, text: str) -> list[str]:
        pieces = self._pieces
        words: list[str] = []
        for piece in text.split():
            tokens = pieces.get(piece)
            words.extend(self._split(piece) if tokens is None else tokens)
        return words

    def sent_tokenize(self, text: str) -> list[str]:
        return self._inner.sent_tokenize(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return self._inner.span_tokenize(text)


class JiebaTokenizer(WordTokenizer):
    """Chinese words by jieba, sentences by spaCy's rules."""

    def __init__(self, inner: SpaCyTokenizer) -> None:
        super().__init__(inner.language)
        self._inner = inner
        jieba.setLogLevel("ERROR")

    def word_tokenize(self, text: str) -> list[str]:
        return [word for token in jieba.cut(text) if (word := token.strip())]

    def sent_tokenize(self, text: str) -> list[str]:
        return self._inner.sent_tokenize(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return self._inner.span_tokenize(text)


@cache
def word_tokenizer(language: str) -> WordTokenizer:
    """The tokenizer of an ISO 639-1 language, with datatrove's assignment behind it."""
    stock = load_word_tokenizer(DATATROVE_LANGUAGE.get(language, language))
    if not isinstance(stock, SpaCyTokenizer):
        return stock
    if language == "zh":
        return JiebaTokenizer(stock)
    by_pieces = type(stock.tokenizer.tokenizer) is Tokenizer  # others look across whitespace
    return RememberingTokenizer(stock) if by_pieces else stock
