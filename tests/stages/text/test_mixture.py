"""What a mixture may say, and what it is told when it may not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stages.text.mixture import Mixture


def test_phases_follow_the_shares_of_the_beginning() -> None:
    mixture = Mixture.model_validate(
        {"weights": {"web": 0.9, "books": 0.1},
         "phases": [{"begin": 50, "weights": {"web": 1}}, {"weights": {"books": 1}}]}
    )  # fmt: skip
    found = [(begin, shares.weights) for begin, shares in mixture.stretches(decay_start=70)]
    assert found == [(0, {"web": 0.9, "books": 0.1}), (50, {"web": 1}), (70, {"books": 1})]
    assert mixture.names() == {"web", "books"}
    assert Mixture().weights == {"*": 1.0} and Mixture().names() == set()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"weights": {"a": 1}, "epochs": {"a": 1}}, "'a' has both a weight and epochs: give one"),
        ({"weights": {"a": -1}}, "'a' has -1: give a positive number, or leave out the source"),
        ({"weights": {"a": float("inf")}}, "'a' has inf: give a positive number"),
        ({"weights": {}, "epochs": {"a": 1}}, r"names no source: name one at least, or '\*'"),
        ({"phases": [{"weights": {"a": 0}}]}, "'a' has 0: give a positive number"),
        ({"caps": {"a": 0}}, "caps gives 'a' 0 epochs: give a positive number, or leave the"),
        ({"max_epochs": 0}, "greater than 0"),
        ([0.7, 0.3], r"found \[0.7, 0.3\], expected the sources by name"),
        ({"web": 0.7, "books": 0.3}, "write sources under weights: {books: 0.3, web: 0.7}"),
        ({"wieghts": {"a": 1}}, "wieghts"),
    ],
)
def test_a_mistake_is_explained(written: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Mixture.model_validate(written)


def test_phases_begin_at_rising_steps() -> None:
    mixture = Mixture.model_validate({"phases": [{"begin": 80}, {"begin": "decay"}]})
    with pytest.raises(ValueError, match=r"begin at steps \[0, 80, 70\]: give rising steps"):
        mixture.stretches(decay_start=70)
