"""Repeated spans: exactly what an earlier document has is cut, to the word."""

from __future__ import annotations

import random

import numpy as np

from stages.text import spans


def words(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def cut(texts: list[str], size: int) -> list[str]:
    """Every text without what the ones before it have."""
    found = [spans.window_hashes(text, size) for text in texts]
    places = [
        (np.arange(len(f)) + (n << spans.PLACE_BITS)).astype(np.uint64) for n, f in enumerate(found)
    ]
    again = spans.repeated(np.concatenate(found), np.concatenate(places)).astype(np.int64)
    mask = (1 << spans.PLACE_BITS) - 1
    return [
        spans.without_spans(
            text, [int(p) & mask for p in again if int(p) >> spans.PLACE_BITS == number], size
        )
        for number, text in enumerate(texts)
    ]


def test_the_longest_common_stretch_goes_to_the_word() -> None:
    shared, size = words(37, 1), 20
    first = [*words(30, 2), *shared, *words(10, 3)]
    second = [*words(25, 4), *shared, *words(12, 5)]
    short = [*words(25, 6), *shared[:19], *words(12, 7)]  # one word less than a window
    texts = [" ".join(text) for text in (first, second, short)]
    found = cut(texts, size)
    assert found[0] == texts[0] and found[2] == texts[2]
    assert found[1].split() == [*words(25, 4), *words(12, 5)]


def test_case_and_line_breaks_do_not_hide_it_and_chinese_counts_characters() -> None:
    notice = "All rights reserved and no part of this page may be copied by anybody anywhere."
    texts = [f"One.\n{notice}\nUnique.", f"Two things.\n\n{notice.upper()}\n\nAnother end."]
    assert cut(texts, 10)[1] == "Two things.\n\nAnother end."
    chinese = "版权所有未经许可不得转载本站内容"
    found = cut([f"今天天气很好。{chinese}", f"昨天下雨了。{chinese}，谢谢。"], 10)
    assert found[1] == "昨天下雨了，谢谢。"


def test_short_texts_have_no_windows() -> None:
    assert spans.window_hashes("a few words", 10).size == 0
    assert spans.without_spans("a few words", [], 10) == "a few words"
