"""Our tokenizers give the tokens, sentences and verdicts that stock datatrove gives."""

from __future__ import annotations

import random

import pytest
from datatrove.data import Document
from datatrove.utils.word_tokenizers import load_word_tokenizer

from stages.text import quality
from stages.text.words import DATATROVE_LANGUAGE, word_tokenizer

TEXTS = {
    "en": [
        "Mr. O'Neil's dog (aged 3) didn't bark... \"Why?\" he asked. See https://a.org/x?y=1, ok!",
        "Double  spaces.  And a tab\there.\n\nNew paragraph: 3.14 vs. 1,000; e.g. C++/C#.",
        "No end. . . and !!! then?! (yes.) [done] \u201cquoted.\u201d Next\u2014word :) : )",
        "don't can't I'm we're U.S.A. i.e. co-op state-of-the-art @user #tag $5 50% a_b",
    ],
    "zh": [
        "今天天气很好，我们去公园散步。你呢？我也去！",
        "小明有37个苹果，Python 3.11很好用。\n第二行：他说：“好的。”然后走了。",
        "没有标点的一行文字也要能处理",
    ],
}


def cases(language: str) -> list[str]:
    source = random.Random(5)
    pieces = [piece for text in TEXTS[language] for piece in text.split(" ")]
    mixed = [" ".join(source.choices(pieces, k=30)) for _ in range(60)]
    return TEXTS[language] + mixed


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_equal_the_stock_tokenizer(language: str) -> None:
    ours, stock = word_tokenizer(language), load_word_tokenizer(DATATROVE_LANGUAGE[language])
    for text in cases(language):
        assert ours.word_tokenize(text) == stock.word_tokenize(text)


def test_what_is_split_without_spacy_is_split_as_by_spacy() -> None:
    ours, stock = word_tokenizer("en"), load_word_tokenizer(DATATROVE_LANGUAGE["en"])
    words = ["dog", "Dog", "DOG", "dOg", "cant", "Cant", "id", "im", "No", "no", "vs", "etc", "Mr",
             "Dr", "a", "I", "km", "Inc", "e", "p.m", "USA", "u", "Wed", "Jan"]  # fmt: skip
    pieces = [word + mark for word in words for mark in ("", *",;:!?.", "...", ")", "'s")]
    for piece in pieces:
        assert ours.word_tokenize(piece) == stock.word_tokenize(piece), piece
        line = f"It is {piece} And so on"
        assert ours.span_tokenize(line) == stock.span_tokenize(line), piece


@pytest.mark.parametrize("language", ["en", "zh"])
def test_sentences_equal_the_stock_tokenizer(language: str) -> None:
    ours, stock = word_tokenizer(language), load_word_tokenizer(DATATROVE_LANGUAGE[language])
    for text in cases(language):
        for line in text.split("\n"):
            assert ours.span_tokenize(line) == stock.span_tokenize(line)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_verdicts_equal_stock_datatrove(language: str) -> None:
    filters = quality.QualityFilters()
    stock = [
        (name, quality.STOCK[name](language=DATATROVE_LANGUAGE[language], **arguments))
        for name, arguments in quality.settings(language, "web").items()
    ]
    source = random.Random(9)
    sentences = [s for text in TEXTS[language] for s in text.replace("\n", " ").split(" ")]
    for count in range(5, 150, 6):
        text = "\n".join(
            " ".join(source.choices(sentences, k=12)) + ("。" if language == "zh" else " the of.")
            for _ in range(count // 6 + 1)
        )
        expected = (True, "", "")
        document = Document(text=text, id="")
        for name, stock_filter in stock:
            answer = stock_filter.filter(document)
            if answer is not True:
                expected = (False, name, answer[1])
                break
        found = filters.verdict(text, language)
        assert (found.kept, found.filter, found.reason) == expected
        assert found.text == document.text or not found.kept
