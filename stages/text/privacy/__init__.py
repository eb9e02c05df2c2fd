"""Personal data: where it is in a text, and masking it.

Each kind is a pattern and, where the kind has a checksum or a range, a check: spans are exact and a
function of the text (and its language) alone, whatever batch it came in. Version strings,
timestamps, private and documentation addresses are not personal data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.text.privacy.checksums import chinese_resident_id, iban, luhn
from stages.text.privacy.patterns import KINDS, RULES

__all__ = [
    "KINDS",
    "Action",
    "Protected",
    "Span",
    "chinese_resident_id",
    "find_spans",
    "iban",
    "luhn",
    "mask",
    "protect",
]

Action = Literal["mask", "remove", "drop", "keep"]
"""What happens to a kind: `<kind>` instead of it, nothing instead of it, the document goes, or it
stays."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """`text[start:stop]` is personal data of this kind."""

    start: int
    stop: int
    kind: str


@dataclass(frozen=True, slots=True)
class Protected:
    """The text after all actions, how many spans of each kind they met, and the kind that drops the
    document ("" if none does).
    """

    text: str
    kinds: Counter[str]
    dropped: str = ""


def find_spans(text: str, language: str = "") -> list[Span]:
    """All personal data in the text, by position, without overlaps.

    `language` says whose way of writing phone numbers to expect besides the common ones.
    """
    taken: list[Span] = []
    for rule in RULES:
        if rule.needs and not any(needed in text for needed in rule.needs):
            continue
        for start, stop in rule.find(text, language):
            if not any(span.start < stop and start < span.stop for span in taken):
                taken.append(Span(start, stop, rule.kind))
    return sorted(taken)


def protect(
    text: str, language: str = "", actions: Mapping[str, Action] | None = None
) -> Protected:
    """Do to every span what `actions` say of its kind; a kind not named is masked."""
    actions = actions or {}
    parts, at = [], 0
    kinds: Counter[str] = Counter()
    for span in find_spans(text, language):
        action = actions.get(span.kind, "mask")
        if action == "keep":
            continue
        if action == "drop":
            return Protected(text, Counter(), span.kind)
        parts += [text[at : span.start], f"<{span.kind}>" if action == "mask" else ""]
        kinds[span.kind] += 1
        at = span.stop
    return Protected("".join([*parts, text[at:]]), kinds)


def mask(text: str, language: str = "") -> tuple[str, Counter[str]]:
    """The text with every span replaced by `<kind>`, and how many of each kind there were."""
    protected = protect(text, language)
    return protected.text, protected.kinds
