"""Our n-gram counts are datatrove's."""

from __future__ import annotations

import random

import pytest
from datatrove.pipeline.filters import gopher_repetition_filter as stock

from stages.text.gopher import Ngrams, duplicate_chars, top_duplicate_chars


@pytest.mark.parametrize("vocabulary", [2, 5, 40, 2000])
def test_counts_equal_the_stock_functions(vocabulary: int) -> None:
    source = random.Random(vocabulary)
    # Words of one letter in two lengths: different runs of them join to the same text.
    known = ["ab"[n % 2] * (1 + n // 2 % 7) + str(n // 14 or "") for n in range(vocabulary)]
    for length in (0, 1, 4, 12, 60, 400):
        words = source.choices(known, k=length)
        for size in (2, 3, 4):
            grams = stock.get_n_grams(words, size)
            expected = stock.find_top_duplicate(grams) if grams else 0
            assert top_duplicate_chars(Ngrams(words, " "), size) == expected
        for size in (5, 6, 7, 8, 9, 10):
            assert duplicate_chars(Ngrams(words, ""), size) == stock.find_all_duplicate(words, size)
