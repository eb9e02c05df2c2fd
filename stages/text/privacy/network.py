"""Addresses of machines: IPv4 and IPv6 that are routed in the internet, and MAC.

A version, a section's number or an enzyme's class is written like an IPv4 address. So words of
versions and sections beside it refuse one, and small numbers, which addresses seldom and versions
nearly always have, need a word of addresses before them.
"""

from __future__ import annotations

import ipaddress
import re

from stages.text.privacy.rule import Rule, pattern_rule

_NUMBERED = re.compile(
    r"(?:versi|versão|верс|wersj|verze|verzi|sürüm|release|revision|firmware|driver|update|upgrade"
    r"|patch|build|kernel|package|plugin|\btag\b|\bver\b|\brev\b|\bfw\b|\bsdk\b|\bv\b"
    r"|section|chapter|clause|figure|\bfig\b|table|appendix|paragraph|article|abschnitt|kapitel|§"
    r"|\bec\b|\boid\b|\bitem\b|\bstep\b|chrom(?:e|ium)|firefox|safari|opera|\bedge\b|windows|android"
    r"|\bios\b|linux|openssl|oracle|\bjava\b|\bphp\b|nginx|apache"
    r"|版|固件|升级|更新|驱动|补丁|バージョン|버전|第|章|节|節)",
    re.IGNORECASE,
)
_NUMBERED_AFTER = re.compile(
    r"[ ]?(?:版|节|節|章|条|條|バージョン|버전|version|release)", re.IGNORECASE
)
_ANNOUNCED = re.compile(
    r"(?:\bip(?:v4)?s?\b|address|\bhost|server|\bdns\b|\bping|router|gateway|proxy|client|forwarded|\bnode\b"
    r"|remote|\bpeer|login|\bssh\b|request|visitor|blocked|banned|attack|地址|服务器|主机|访问|来自"
    r"|://)",
    re.IGNORECASE,
)
_ASSIGNED = ipaddress.IPv6Network("2000::/3")
_SMALL, _TINY, _SMALL_COUNT = 20, 4, 3
_LOOK_BACK = 48
_SENTENCE_END = re.compile(r"\n|[。；]|(?:[^\W\d_]{4}|\d)[.;] ")


def _routed(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_global
    # Only 2000::/3 was ever assigned; names in programs such as a::b, and rows of bytes, look
    # like the rest.
    whole = text.count(":") == 7 and max(map(len, text.split(":"))) == 4
    likely = whole or address in _ASSIGNED
    return likely and address.is_global and any(map(str.isdigit, text))


def _is_address(text: str, start: int, stop: int) -> bool:
    """Whether an IPv4 address stands where one may."""
    begin = max(0, start - _LOOK_BACK)
    for end in _SENTENCE_END.finditer(text, begin, start):
        begin = end.end()
    announced, numbered = (
        max((match.start() for match in words.finditer(text, begin, start)), default=-1)
        for words in (_ANNOUNCED, _NUMBERED)
    )
    if max(announced, numbered) >= 0 and announced != numbered:
        return announced > numbered
    if _NUMBERED_AFTER.match(text, stop) or text[start - 1 : start] == ":":
        return False
    parts = [int(part) for part in text[start:stop].split(".")]
    small = sum(part < _SMALL for part in parts) >= _SMALL_COUNT and min(parts) < _TINY
    return not small and 0 not in parts[1:3]


def _mixed(text: str) -> bool:
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text))


NETWORK_RULES: tuple[Rule, ...] = (
    pattern_rule(
        "mac", r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])", needs=(":", "-")
    ),
    pattern_rule(
        "mac", r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])", _mixed, needs=(".",)
    ),
    pattern_rule(
        "ip",
        r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}"
        r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{1,4}|(?<=::))(?![\w:]|\.\d)",
        _routed,
        needs=(":",),
    ),
    pattern_rule(
        "ip",
        r"(?<![\w.-])(?<!\w/)(?<!==)(?<!\d:)(?<!::)\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)",
        _routed,
        needs=(".",),
        around=_is_address,
    ),
)
