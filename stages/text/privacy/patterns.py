"""The kinds of personal data: for each a pattern and, where there is one, a check.

The order is that of precedence: an earlier kind keeps a span that a later one overlaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stages.text.privacy import checksums
from stages.text.privacy.phones import find_phones

Find = Callable[[str, str], Iterator[tuple[int, int]]]
"""(text, language) -> spans."""
_KEYS = (
    r"A(?:KIA|SIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}|glpat-[\w-]{20,}"
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}"
    r"|hf_[A-Za-z]{30,}|[rs]k_(?:live|test)_[0-9A-Za-z]{20,}|npm_[A-Za-z0-9]{36}"
    r"|pypi-[A-Za-z0-9_-]{50,}|SG\.[\w-]{22}\.[\w-]{43}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{20,4000}?-----END [A-Z ]*PRIVATE KEY-----"
)
_NAMED_SECRET = (
    r"(?i:(?:api|access|secret|auth|private)[_-]?(?:key|token|secret)|client[_-]?secret|passw(?:or)?d"
    r"|token)[\"']?\s{0,3}[=:]\s{0,3}[\"']?"
)
_FILE_ENDINGS = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "ico",
        "js",
        "ts",
        "css",
        "html",
        "htm",
        "py",
        "so",
        "dll",
        "json",
    ]
)
_NOT_VERSION = (
    r"(?<![\w.:/-])(?<!version )(?<!Version )(?<!version: )(?<!release )(?<!版本 )(?<!版本)"
)
_DEGREES = r"[-+]?\d{1,3}\.\d{4,}"
_PLACE = re.compile(
    r"(?:\b(?:gps|lat|latitude|lon|lng|long|longitude|coord(?:inate)?s?|location|position|geo|located"
    r"|map|ll)\b|坐标|经纬度|纬度|位置|定位|座標)[^\n]{0,24}$|[@(]$",
    re.IGNORECASE,
)
_PAYMENT = re.compile(r"(?i)(?:card|\bcc\b|credit|debit|visa|master|amex|卡)[^\n]{0,40}$")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a kind is written. `needs` are texts of which one must occur at all."""

    kind: str
    find: Find
    needs: tuple[str, ...] = ()


def _pattern(
    kind: str,
    pattern: str,
    check: Callable[[str], bool] = bool,
    needs: tuple[str, ...] = (),
    before: re.Pattern[str] | None = None,
) -> Rule:
    """A rule by regular expression: the group "it" if there is one, else the whole match.

    `before` must match what stands before the span.
    """
    compiled = re.compile(pattern, re.ASCII)  # a Han character before a number is no part of it
    group: str | int = "it" if "it" in compiled.groupindex else 0

    def find(text: str, language: str) -> Iterator[tuple[int, int]]:
        for match in compiled.finditer(text):
            start, stop = match.span(group)
            if not check(text[start:stop]):
                continue
            if before is None or before.search(text, max(0, start - 64), start):
                yield start, stop

    return Rule(kind, find, needs)


def _address(email: str) -> bool:
    """No file name such as icon@2x.png, no git@host."""
    name, _, host = email.partition("@")
    return name != "git" and host.rpartition(".")[2].lower() not in _FILE_ENDINGS


def _random_looking(value: str) -> bool:
    """Letters and digits mixed, as a key is and a placeholder or a word is not."""
    digits = sum(c.isdigit() for c in value)
    return digits >= 3 and len(value) - digits >= 3 and len(set(value)) >= 8


def _long_card(text: str) -> bool:
    return checksums.card(text) and sum(c.isdigit() for c in text) in (15, 16, 19)


def _degrees(text: str) -> bool:
    first, second = (float(part) for part in re.split(r"\s*[,;]\s*|\s+", text, maxsplit=1))
    return abs(first) <= 90 and abs(second) <= 180


RULES: tuple[Rule, ...] = (
    _pattern("secret", rf"(?<![\w-])(?:{_KEYS})"),
    _pattern(
        "secret",
        rf"{_NAMED_SECRET}(?P<it>[\w/+.-]{{16,}}={{0,2}})",
        _random_looking,
        needs=("=", ":"),
    ),
    _pattern("url_credentials", r"(?<=://)[^\s/:@<>\"']+:[^\s/:@<>\"']+(?=@[\w.-])", needs=("@",)),
    _pattern(
        "email",
        r"(?<![\w.+%-])[A-Za-z0-9_][\w.+%'-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
        _address,
        needs=("@",),
    ),
    _pattern(
        "crypto_wallet",
        r"(?<![\w])(?:bc1|ltc1|tb1)[a-z0-9]{25,87}(?!\w)",
        checksums.bech32_wallet,
        needs=("bc1", "tc1", "tb1"),
    ),
    _pattern(
        "crypto_wallet",
        r"(?<![\w])[13LMDTA9][1-9A-HJ-NP-Za-km-z]{25,34}(?!\w)",
        checksums.base58_wallet,
    ),
    _pattern("crypto_wallet", r"(?<![\w])0x[0-9a-fA-F]{40}(?!\w)", needs=("0x",)),
    _pattern(
        "resident_id",
        r"(?<![\dA-Za-z])[1-9]\d{16}[\dXx](?![\dA-Za-z])",
        checksums.chinese_resident_id,
    ),
    _pattern(
        "passport",
        r"(?<![\w<])[A-Z0-9<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z0-9<]{14}[\d<]\d(?![\w<])",
        checksums.machine_readable_passport,
    ),
    _pattern(
        "passport",
        r"(?i:passport(?:\s(?:no|number|nr|num)\b)?\.?\s?(?:is|#|:|：)?\s?[:：]?\s?)"
        r"(?P<it>[A-Z]{1,2}\d{6,8}|\d{8,9})(?!\w)",
        needs=("assport", "ASSPORT"),
    ),
    _pattern(
        "passport",
        r"护照(?:号码|号)?(?:是|为|[:：])?\s?(?P<it>[A-Z]{1,2}\d{7,8})(?![\dA-Za-z])",
        needs=("护照",),
    ),
    _pattern(
        "iban",
        r"(?<![A-Za-z0-9])(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"
        r"|[a-z]{2}\d{2}[a-z0-9]{11,30})(?![A-Za-z0-9])",
        checksums.iban,
    ),
    _pattern(
        "credit_card", r"(?<![\w.-])\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|\.\d)", _long_card
    ),
    _pattern(
        "credit_card", r"(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)", checksums.card
    ),
    _pattern("credit_card", r"(?<![\w.-])\d{12,19}(?![\w-]|\.\d)", checksums.card, before=_PAYMENT),
    _pattern(
        "social_security",
        r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])",
        checksums.social_security,
        needs=("-",),
    ),
    _pattern(
        "mac", r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])", needs=(":", "-")
    ),
    _pattern(
        "ip",
        _NOT_VERSION + r"\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)",
        checksums.public_address,
        needs=(".",),
    ),
    _pattern(
        "ip",
        r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])",
        checksums.public_address,
        needs=(":",),
    ),
    _pattern(
        "gps",
        rf"(?<![\w.]){_DEGREES}\s?[,;]\s?{_DEGREES}(?![\w.])",
        _degrees,
        needs=(".",),
        before=_PLACE,
    ),
    _pattern("gps", rf"(?<![\w.]){_DEGREES}°? ?[NS][,;]? ?{_DEGREES}°? ?[EW](?!\w)", needs=(".",)),
    _pattern(
        "gps",
        r"(?<![\w.])\d{1,2}° ?\d{1,2}[′'] ?\d{1,2}(?:\.\d+)?[″\"] ?[NS][, ]{0,2}"
        r"\d{1,3}° ?\d{1,2}[′'] ?\d{1,2}(?:\.\d+)?[″\"] ?[EW](?!\w)",
        needs=("°",),
    ),
    Rule("phone", find_phones),
)
KINDS = tuple(dict.fromkeys(rule.kind for rule in RULES))
