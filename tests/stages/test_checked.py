"""A value that does not fit is a sentence that says where, what was found and what was expected."""

from __future__ import annotations

from typing import Any

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
        ([], r"found \[\], expected a valid dictionary"),
    ],
)
def test_what_does_not_fit_is_said(tree: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        checked(Outer, tree, "here.")


def test_every_fault_has_a_line_of_its_own() -> None:
    with pytest.raises(UserError) as caught:
        checked(Outer, {"inner": {"rows": 0}}, "")
    assert len(str(caught.value).splitlines()) == 2
