"""Each rule holds and breaks; malformed rules are the problem's fault, not the completion's."""

from __future__ import annotations

from typing import Any

import pytest

from stages.verify.constraint import RULES, verify_constraint

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"rule": "equals", "text": "a b"}, " a b\n", "a  b"),
    ({"rule": "items", "items": ["x", "y"], "separator": ","}, "x,  y", "y, x"),
    ({"rule": "contains", "text": "ab", "times": 2}, "ab ab", "ab a b"),
    ({"rule": "excludes", "text": "e"}, "no", "yes"),
    ({"rule": "starts_with", "text": "No"}, "No.", "no."),
    ({"rule": "ends_with", "text": "!"}, "Stop! ", "Stop."),
    ({"rule": "upper_case"}, "A 1", "A b"),
    ({"rule": "lower_case"}, "a 1", "123"),
    ({"rule": "words", "least": 2, "most": 3}, "one two three", "one"),
]


@pytest.mark.parametrize(("rule", "good", "bad"), CASES, ids=[case[0]["rule"] for case in CASES])
def test_rule(rule: dict[str, Any], good: str, bad: str) -> None:
    assert verify_constraint([rule], good).passed
    verdict = verify_constraint([rule], bad)
    assert not verdict.passed
    assert verdict.reason == f"broke {rule['rule']}"


def test_every_rule_has_a_case() -> None:
    assert {case[0]["rule"] for case in CASES} == set(RULES)


def test_score_is_the_share_of_rules() -> None:
    rules = [
        {"rule": "upper_case"},
        {"rule": "ends_with", "text": "!"},
        {"rule": "words", "least": 1, "most": 1},
        {"rule": "excludes", "text": "B"},
    ]
    verdict = verify_constraint(rules, "AB")
    assert (verdict.passed, verdict.score) == (False, 0.5)


def test_malformed_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="no rule 'rhymes'; known: equals"):
        verify_constraint([{"rule": "rhymes"}], "x")
    with pytest.raises(ValueError, match="lacks its key 'text'"):
        verify_constraint([{"rule": "equals"}], "x")
    with pytest.raises(ValueError, match="at least one"):
        verify_constraint([], "x")
