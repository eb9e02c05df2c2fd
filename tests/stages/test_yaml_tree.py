"""YAML as a recipe may be written, and the sentence for what may not."""

from __future__ import annotations

import pytest

from stages.yaml_tree import YamlMistake, parse


def test_anchors_and_merges_are_as_in_any_yaml() -> None:
    text = "one: &one {rows: 1, zero: 2}\ntwo: {<<: *one, rows: 3}\nthree: {<<: *one, rows: 4}\n"
    assert parse(text)["two"] == {"rows": 3, "zero": 2}
    assert parse(text)["three"] == {"rows": 4, "zero": 2}
    assert parse("") is None and parse("'1': a\n1: b") == {"1": "a", 1: "b"}


def test_numbers_are_as_in_yaml_1_2() -> None:
    assert parse("[20e9, 1e-3, -2.5E+1, 7]") == [2e10, 0.001, -25.0, 7]
    assert parse("[e9, 12e4x, '1e3', 1e]") == ["e9", "12e4x", "1e3", "1e"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "line 1, column 1: the key 'a' stands twice in one mapping"),
        ("a: {b: {c: 1, c: 2}}", "column 9: the key 'c' stands twice"),
        ("a: [", "line 1, column 5: while parsing a flow node, expected the node content"),
        ("a: 2020-13-45", "month must be in"),
        ("a: \x00", "unacceptable character"),
        ("a: !!python/object:os.system x", "could not determine a constructor for the tag"),
        ("[" * 5000, "too deep inside each other"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(YamlMistake, match=sentence):
        parse(text)
