"""A value that does not fit is a sentence that says where, what was found and what was expected."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import UserError
from stages.checked import checked


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rows: int = Field(default=1, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner = Inner()
    parts: list[Inner] = Field(default=[], max_length=1)
    by_name: dict[str, Inner] = {}
    by_word: dict[Literal["left", "right"], int] = {}
    workers: int | tuple[int, int] = 1
    names: str | list[str] = ""


def test_what_fits_is_typed() -> None:
    assert checked(Outer, {"name": "a", "inner": {"rows": 3}}, "").inner.rows == 3


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({}, r"^here\.name: missing; it has no default"),
        ({"name": 5}, r"^here\.name: found 5, expected a valid string$"),
        ({"name": "a", "iner": {}}, r"there is no key 'iner'; did you mean 'inner'\?"),
        ({"name": "a", "inner": {"row": 2}}, r"here\.inner\.row: .* did you mean 'rows'\?"),
        ({"name": "a", "parts": [{"row": 2}]}, r"here\.parts\.0\.row: .* did you mean 'rows'\?"),
        ({"name": "a", "parts": [{}, {}]}, r"here\.parts: found .*, expected to have at most 1"),
        ({"name": "a", "by_name": {7: {}}}, r"here\.by_name\.7: found 7 as a key, expected text"),
        (
            {"name": "a", "by_word": {"up": 1}},
            r"^here\.by_word\.up: found 'up', expected 'left' or",
        ),
        (
            [],
            r"^here: found \[\], expected a mapping of name, inner, parts, by_name, .*\.\.\.$",
        ),
        ({"name": "a", "inner": "x"}, r"^here\.inner: found 'x', expected a mapping of rows$"),
        ({"name": "a", "by_name": 3}, r"^here\.by_name: found 3, expected a mapping$"),
    ],
)
def test_what_does_not_fit_is_said(tree: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        checked(Outer, tree, "here.")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("workers", "two", "found 'two', expected a valid integer or a list [int, int]"),
        ("workers", [1, 2, 3], "found [1, 2, 3], expected to have at most 2 items, not 3"),
        ("workers", 1e30, "found 1e+30, expected a smaller number or a list [int, int]"),
        ("names", 5, "found 5, expected a valid string or a valid list"),
        ("names", {"a": 1}, "found {'a': 1}, expected a valid string or a valid list"),
    ],
)
def test_a_choice_of_kinds_is_one_sentence(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(Outer, {"name": "a", key: value}, "here.")
    assert str(caught.value) == f"here.{key}: {sentence}"


def test_of_a_choice_the_one_that_went_further_speaks() -> None:
    with pytest.raises(UserError) as caught:
        checked(Outer, {"name": "a", "workers": [1, "two"]}, "")
    assert str(caught.value) == "workers.1: found 'two', expected a valid integer"


def test_a_number_too_large_for_an_integer() -> None:
    with pytest.raises(UserError) as caught:
        checked(Outer, {"name": "a", "inner": {"rows": 1e30}}, "")
    assert str(caught.value) == "inner.rows: found 1e+30, expected a smaller number"


def test_every_fault_has_a_line_of_its_own() -> None:
    with pytest.raises(UserError) as caught:
        checked(Outer, {"inner": {"rows": 0}}, "")
    assert len(str(caught.value).splitlines()) == 2
