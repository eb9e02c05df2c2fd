"""One way in which a kind of personal data is written: what is looked for, and what must hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Find = Callable[[str, str], Iterator[tuple[int, int]]]
"""(text, language) -> spans."""
Accept = Callable[[str, int, int], bool]
"""(text, start, stop) -> whether the span's surroundings allow it."""
_LOOK_BACK = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a kind is written. `needs` are texts of which one must occur at all."""

    kind: str
    find: Find
    needs: tuple[str, ...] = ()


def pattern_rule(
    kind: str,
    pattern: str,
    check: Callable[[str], bool] = bool,
    needs: tuple[str, ...] = (),
    before: re.Pattern[str] | None = None,
    around: Accept | None = None,
) -> Rule:
    """A rule by regular expression: the group "it" if there is one, else the whole match.

    `before` must match what stands before the span, and `around` judge where it stands.
    """
    compiled = re.compile(pattern, re.ASCII)  # a Han character before a number is no part of it
    group: str | int = "it" if "it" in compiled.groupindex else 0

    def find(text: str, language: str) -> Iterator[tuple[int, int]]:
        for match in compiled.finditer(text):
            start, stop = match.span(group)
            if not check(text[start:stop]):
                continue
            if before is not None and not before.search(text, max(0, start - _LOOK_BACK), start):
                continue
            if around is None or around(text, start, stop):
                yield start, stop

    return Rule(kind, find, needs)
