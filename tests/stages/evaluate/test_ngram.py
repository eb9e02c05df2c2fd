"""The n-gram model against a slow reference written from the formulas with dictionaries."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from stages.evaluate.ngram import KneserNey


class Reference:
    """Chen and Goodman's interpolated modified Kneser-Ney, one n-gram at a time."""

    def __init__(self, documents: list[list[int]], vocabulary_size: int, order: int) -> None:
        self.vocabulary_size, self.order = vocabulary_size, order
        raw: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for document in documents:
            row = [-1, *document]
            for length in range(1, order + 1):
                for start in range(len(row) - length + 1):
                    raw[length][tuple(row[start : start + length])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{} for _ in range(order + 1)]
        for length in range(1, order + 1):
            for gram, count in raw[length].items():
                if length < order and gram[0] != -1:
                    count = sum(longer[1:] == gram for longer in raw[length + 1])
                self.counts[length][gram] = count
        del self.counts[1][(-1,)]
        self.discounts = [self._estimate(list(c.values())) for c in self.counts]
        self.followers: list[dict[tuple[int, ...], dict[int, int]]] = []
        for length in range(order + 1):
            table: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
            for gram, count in self.counts[length].items():
                table[gram[:-1]][gram[-1]] = count
            self.followers.append(table)

    @staticmethod
    def _estimate(counts: list[int]) -> list[float]:
        n1, n2, n3, n4 = (counts.count(times) for times in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return [0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        raw = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return [min(max(d, 0.05), i + 0.95) for i, d in enumerate(raw)]

    def probability(self, token: int, history: list[int]) -> float:
        return self._at(token, tuple([-1, *history][-(self.order - 1) :]) if self.order > 1 else ())

    def _at(self, token: int, context: tuple[int, ...]) -> float:
        lower = self._at(token, context[1:]) if context else 1 / self.vocabulary_size
        counts = self.followers[len(context) + 1].get(context)
        if not counts:
            return lower
        discounts = self.discounts[len(context) + 1]
        taken = {word: min(discounts[min(c, 3) - 1], c) for word, c in counts.items()}
        own = counts.get(token, 0) - taken.get(token, 0.0)
        return (own + sum(taken.values()) * lower) / sum(counts.values())


def zipf_documents(rng: np.random.Generator, documents: int, vocabulary: int) -> list[np.ndarray]:
    weights = 1 / np.arange(1, vocabulary + 1)
    weights /= weights.sum()
    return [
        rng.choice(vocabulary, size=int(rng.integers(1, 40)), p=weights) for _ in range(documents)
    ]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_reference(order: int) -> None:
    rng = np.random.default_rng(order)
    train = zipf_documents(rng, 60, 13)
    model = KneserNey.train(train, 13, order)
    reference = Reference([document.tolist() for document in train], 13, order)
    for document in zipf_documents(rng, 5, 13):
        wanted = [
            np.log2(reference.probability(int(token), document[:place].tolist()))
            for place, token in enumerate(document)
        ]
        np.testing.assert_allclose(model.log2_probabilities(document), wanted, rtol=1e-10)


def test_discounts_are_estimated_not_fallen_back_to() -> None:
    train = zipf_documents(np.random.default_rng(0), 60, 13)
    reference = Reference([document.tolist() for document in train], 13, 3)
    assert reference.discounts[3] != [0.5, 1.0, 1.5]


def test_distributions_sum_to_one_for_seen_and_unseen_histories() -> None:
    rng = np.random.default_rng(3)
    train = zipf_documents(rng, 40, 17)
    model = KneserNey.train(train, 17, 5)
    histories = [[], train[0][:1], train[0][:6], [16, 15, 16, 15, 14], rng.integers(0, 17, 9)]
    for history in histories:
        distribution = model.distribution(np.asarray(history, dtype=np.int64))
        assert distribution.min() > 0
        assert distribution.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_repeated_text_becomes_certain_and_no_ngram_crosses_documents() -> None:
    text = np.array([1, 2, 3, 4, 5, 6, 7])
    model = KneserNey.train([text] * 50, 9, 5)
    assert 2 ** model.log2_probabilities(text).mean() > 0.9
    # 7 then 1 stands only across a border
    assert model.distribution(text)[1] < 0.5


def test_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="needs text"):
        KneserNey.train([np.zeros(0, dtype=np.int64)], 9, 5)
