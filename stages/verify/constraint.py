"""Constraints on the form of an answer, each decided by a few lines of text handling.

A constraint is a list of rules, each a dict with the key "rule", that are applied to the stripped
completion. All must hold for a pass; the score is the share that does.

    equals       text                   the completion is this text
    items        items, separator       split at the separator and stripped, it is this list
    contains     text, times            the text occurs at least `times` times (case matters)
    excludes     text                   the text does not occur
    starts_with  text                   it begins so
    ends_with    text                   it ends so
    upper_case                          it has letters and none is lower case
    lower_case                          it has letters and none is upper case
    words        least, most            the number of words split at white space, both inclusive
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.verify.verdict import Verdict, right, wrong

Rule = Mapping[str, Any]


def _items(text: str, rule: Rule) -> bool:
    items = [item.strip() for item in text.split(rule["separator"])]
    return items == list(rule["items"])


RULES: dict[str, Callable[[str, Rule], bool]] = {
    "equals": lambda text, rule: text == rule["text"],
    "items": _items,
    "contains": lambda text, rule: text.count(rule["text"]) >= rule.get("times", 1),
    "excludes": lambda text, rule: rule["text"] not in text,
    "starts_with": lambda text, rule: text.startswith(rule["text"]),
    "ends_with": lambda text, rule: text.endswith(rule["text"]),
    "upper_case": lambda text, rule: text.isupper(),
    "lower_case": lambda text, rule: text.islower(),
    "words": lambda text, rule: rule["least"] <= len(text.split()) <= rule["most"],
}


def verify_constraint(rules: Sequence[Rule], completion: str) -> Verdict:
    """The verdict on all rules. A malformed rule raises ValueError: the problem is at fault."""
    if not rules:
        raise ValueError("a constraint has no rules; expected at least one")
    text = completion.strip()
    broken = []
    for rule in rules:
        name = rule.get("rule")
        if name not in RULES:
            raise ValueError(f"there is no rule {name!r}; known: {', '.join(RULES)}")
        try:
            if not RULES[name](text, rule):
                broken.append(name)
        except KeyError as error:
            raise ValueError(f"rule {name!r} lacks its key {error}") from error
    if broken:
        return wrong(f"broke {', '.join(broken)}", 1.0 - len(broken) / len(rules))
    return right()
