"""Where something is: latitude and longitude, in decimals and in degrees and minutes."""

from __future__ import annotations

import re

from stages.text.privacy.rule import Rule, pattern_rule

_DECIMAL = r"[-+−]?\d{1,3}\.\d{4,}"
_MARKED = r"\d{1,3}(?:\.\d{2,})?"
_ANGLE = r"\d{1,3} ?[°º] ?\d{1,2}(?:\.\d+)? ?[′'’](?: ?\d{1,2}(?:\.\d+)? ?(?:[″\"”]|''|′′))?"
_MINUTES = r"\d{1,3} ?[°º] ?\d{1,2}\.\d+"  # as geocachers write them
_ANNOUNCED = re.compile(
    r"(?:\b(?:gps|lat|latitude|lon|lng|long|longitude|coord(?:inate)?s?|coordenadas|coordonnées"
    r"|koordinaten|location|position|geo|located|maps?|ll)\b|坐标|经纬度|纬度|位置|定位|座標"
    r"|緯度|координаты)[^\n]{0,24}$|@$",
    re.IGNORECASE,
)
_AFTER_A_NAME = re.compile(r"[A-Z][a-z]+,? \($")


def _degrees(text: str) -> bool:
    """Whether both numbers may be degrees, in either order."""
    first, second = sorted(abs(n) for n in _numbers(text))
    return first <= 90 and second <= 180


def _numbers(text: str) -> tuple[float, float]:
    first, second = re.split(r"\s*[,;，；]\s*|\s+", text.replace("−", "-"), maxsplit=1)
    return float(first), float(second)


def _after_a_name(text: str, start: int, stop: int) -> bool:
    """In brackets behind a place's name, and no share or probability."""
    named = _AFTER_A_NAME.search(text, max(0, start - 24), start) is not None
    return named and any(abs(n) >= 10 for n in _numbers(text[start:stop]))


_PAIR = rf"(?<![\w.]){_DECIMAL}\s?[,;，；]\s?{_DECIMAL}(?![\w.]\w)"

PLACE_RULES: tuple[Rule, ...] = (
    pattern_rule("gps", _PAIR, _degrees, needs=(".",), before=_ANNOUNCED),
    pattern_rule("gps", _PAIR, _degrees, needs=(".",), around=_after_a_name),
    pattern_rule(
        "gps",
        rf"(?<![\w.]){_MARKED} ?[°º]? ?[NS][,;，]? ?{_MARKED} ?[°º]? ?[EWO](?!\w)",
        lambda text: text.count(".") == 2,
        needs=(".",),
    ),
    pattern_rule(
        "gps",
        rf"(?<![\w.]){_ANGLE} ?[NS][,;， ]{{0,2}}{_ANGLE} ?[EWO](?!\w)",
        needs=("°", "º"),
    ),
    pattern_rule(
        "gps",
        rf"(?<![\w.])[NS] ?(?:{_ANGLE}|{_MINUTES}|{_DECIMAL} ?[°º]?)[,;， ]{{0,2}}"
        rf"[EWO] ?(?:{_ANGLE}|{_MINUTES}|{_DECIMAL} ?[°º]?)(?![\w.])",
        needs=("°", "º", "."),
    ),
    pattern_rule(
        "gps",
        rf"[北南][纬緯] ?(?:{_ANGLE}|{_DECIMAL} ?[°º度]?)[,;，、 ]{{0,2}}"
        rf"[东東西][经經] ?(?:{_ANGLE}|{_DECIMAL} ?[°º度]?)",
        needs=("纬", "緯"),
    ),
    pattern_rule(
        "gps",
        r"(?i:\b(?:lat(?:itude)?|lon(?:g(?:itude)?)?|lng))[\"']?\s?[=:]?\s?[\"']?"
        rf"(?P<it>{_DECIMAL})(?![\w.])",
        needs=(".",),
    ),
)
