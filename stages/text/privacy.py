"""Personal data: where it is in a text, and masking it.

Each kind is a pattern and, where the kind has a checksum or a range, a check: spans are exact and a
function of the text alone, whatever batch it came in. Version strings, timestamps, private and
documentation addresses are not personal data.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """`text[start:stop]` is personal data of this kind."""

    start: int
    stop: int
    kind: str


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: every second digit from the right doubled, the digit sum divisible by
    10.
    """
    total = 0
    for place, digit in enumerate(int(d) for d in reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def iban(text: str) -> bool:
    """ISO 13616: the country and check digits moved to the end, letters as 10-35, modulo 97
    is 1.
    """
    compact = text.replace(" ", "").upper()
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def chinese_resident_id(text: str) -> bool:
    """GB 11643-1999: 17 digits with a date of birth, weighted by 2^(17-i) mod 11, and a check
    character.
    """
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    if not date(1880, 1, 1) <= born <= date(2100, 1, 1):
        return False
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


def _card(text: str) -> bool:
    digits = re.sub(r"[ -]", "", text)
    return len(set(digits)) > 1 and luhn(digits)


def _public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _phone(text: str) -> bool:
    return 7 <= sum(c.isdigit() for c in text) <= 15


def _social_security(text: str) -> bool:
    """Areas 000, 666 and 9xx, group 00 and serial 0000 were never issued."""
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _always(text: str) -> bool:
    return True


_KEYS = (
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}"
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}"
    r"|hf_[A-Za-z]{30,}|[rs]k_live_[0-9A-Za-z]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{20,4000}?-----END [A-Z ]*PRIVATE KEY-----"
)
_PHONES = (
    # +country code and groups
    r"(?<![\w.+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,5}(?:[ .-]?\d{2,5}){1,4}(?![\d.]*\d)"
    r"|(?<![\w.+-])1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\w-]|\.\d)"  # Chinese mobile
    r"|(?<![\w.+-])0\d{2,3}-\d{7,8}(?![\w-]|\.\d)"  # Chinese fixed line
    # North America
    r"|(?<![\w.+-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}(?![\w-]|\.\d)"
)
_NOT_VERSION = r"(?<![\w.:/-])(?<!version )(?<!Version )(?<!version: )(?<!release )"

# In order of precedence: an earlier kind keeps a span that a later one overlaps.
_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool], str], ...] = (
    ("secret", re.compile(rf"(?<![\w-])(?:{_KEYS})"), _always, ""),
    (
        "url_credentials",
        re.compile(r"(?<=://)[^\s/:@<>\"']+:[^\s/:@<>\"']+(?=@[\w.-])"),
        _always,
        "@",
    ),
    (
        "email",
        re.compile(
            r"(?<![\w.+%-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"
        ),
        _always,
        "@",
    ),
    (
        "resident_id",
        re.compile(r"(?<![\dA-Za-z])[1-9]\d{16}[\dXx](?![\dA-Za-z])"),
        chinese_resident_id,
        "",
    ),
    (
        "iban",
        re.compile(
            r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"
            r"(?![A-Za-z0-9])"
        ),
        iban,
        "",
    ),
    (
        "credit_card",
        re.compile(r"(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|\.\d)"),
        _card,
        "",
    ),
    (
        "credit_card",
        re.compile(r"(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)"),
        _card,
        "",
    ),
    ("social_security", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _social_security, "-"),
    ("phone", re.compile(_PHONES), _phone, ""),
    (
        "ip",
        re.compile(_NOT_VERSION + r"\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"),
        _public_address,
        ".",
    ),
    (
        "ip",
        re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])"),
        _public_address,
        ":",
    ),
    (
        "mac",
        re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])"),
        _always,
        "",
    ),
)
KINDS = tuple(dict.fromkeys(kind for kind, *_ in _KINDS))


def find_spans(text: str) -> list[Span]:
    """All personal data in the text, by position, without overlaps."""
    taken: list[Span] = []
    for kind, pattern, check, needs in _KINDS:
        if needs and needs not in text:
            continue
        for match in pattern.finditer(text):
            start, stop = match.span()
            overlaps = any(span.start < stop and start < span.stop for span in taken)
            if not overlaps and check(match.group()):
                taken.append(Span(start, stop, kind))
    return sorted(taken)


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with every span replaced by `<kind>`, and how many of each kind there were."""
    spans = find_spans(text)
    if not spans:
        return text, Counter()
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], f"<{span.kind}>"]
        at = span.stop
    parts.append(text[at:])
    return "".join(parts), Counter(span.kind for span in spans)
