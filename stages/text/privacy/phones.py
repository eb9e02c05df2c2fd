"""Phone numbers in a text, judged by Google's metadata of every country's numbering plan.

Four ways of writing are looked for: with the country's code; as China and North America write
them; as a country of the text's language does, with its leading zero and groups; and any other
where the words just before say that a phone number comes. Dates, times, versions, decimals and
addresses are none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import phonenumbers

_EXTENSION = r"(?: ?(?:x|ext\.? ?|转)\d{1,6})?"
_END = r"(?![\w@]|[.,:/-]\d)"
_INTERNATIONAL = re.compile(
    r"(?<![\w.+])(?:\(\+[1-9]\d{0,2}\)"
    r"|(?:\+ ?|00(?=[1-9]\d{0,2}[ (-]|[1-9]\d{9,13}\b))[1-9]\d{0,2})[ .-]?"
    rf"(?:\(\d{{1,5}}\)[ .-]?)?\d{{1,12}}(?:[ .-](?:\(\d{{1,5}}\)|\d{{1,8}})){{0,5}}"
    rf"{_EXTENSION}{_END}",
    re.ASCII,
)
_NATIONAL = (
    ("CN", re.compile(rf"(?<![\w.+-])1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_END}", re.ASCII)),
    (
        "CN",
        re.compile(rf"(?<![\w.+-])(?:0\d{{2,3}}-|[(（]0\d{{2,3}}[)）] ?)\d{{7,8}}{_END}", re.ASCII),
    ),
    ("CN", re.compile(rf"(?<![\w.+-])[48]00([ -])\d{{3,4}}\1?\d{{3,4}}{_END}", re.ASCII)),
    (
        "US",
        re.compile(
            r"(?<![\w.+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])[2-9]\d{2}[.-]\d{4}"
            rf"{_EXTENSION}{_END}",
            re.ASCII,
        ),
    ),
)
_GROUPS = re.compile(
    rf"(?<![\w.+/=#-])(?<!\d:)(?:(?:\d[ -]?)?\(\d{{1,5}}\)[ /-]?|\d{{1,5}}(?: / |[ ./-])?)"
    rf"\d{{1,9}}(?:[ ./-]\d{{2,8}}){{0,4}}{_EXTENSION}{_END}",
    re.ASCII,
)
_AREA_CODE_FIRST = re.compile(r"0\d{2,4} ?/ ?\d{2,3}[^/]+$")
"""As German numbers are written; two digits before a slash are a date's."""
_ZIP_CODE = re.compile(r"\d{5}-\d{4}")
_ANNOUNCED = re.compile(
    r"(?:\b(?:phones?|tel(?! aviv)|telephone|mobile|cell|cellphone|fax|whatsapp|hotline|call|dial"
    r"|text|ring|reach|messages?|answering|voicemail|contact|sms|(?:desk|office|home|work)\s?:"
    r"|tél|t[ée]l[ée]phone|tel[ée]fon[eoa]?s?|telefoon|telp|telepon|portable|m[óo]vil|celulare?"
    r"|cellulare|handy|mobil(?:e[lr]?|n[ií]|telefon)?|appele[rz]|joindre|anrufen|ll[aá]m[ae]\w*"
    r"|ligue para|chiam\w+|bel ons|zadzwoń|тел|телефон\w*|моб\w*|звон\w+|điện thoại|هاتف|جوال"
    r"|טלפון|โทร\w*|फोन)"
    r"(?![^\W\d_])(?:\.?\s?(?:nos?|nr|num)\b)?\.?[^\d\n.!?]{0,24}\s*"
    r"|(?:电话|手机|联系方式|传真|致电|拨打|热线|座机|客服|微信|號碼|電話|手機|傳真|携帯|전화|휴대폰|연락처)"
    r"(?![^\d\n]{0,4}[价價年])[^\d\n。]{0,8}\s*)$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\b(?:invoice|order|ref(?:erence)?|serial|part|ticket|case|tracking|account|model|item|lot|batch"
    r"|isbn|issn|ndc|sku|artikel|id|rechnung\w*|konto\w*|los\w*|bestell\w*|commande|facture|pedido|factura|заказ\w*)"
    r"\W{0,2}(?:no|nos|nr|num|number|nummer|#|№)?[.:#№\s]{0,3}$",
    re.IGNORECASE,
)
"""What else a number in groups may be the number of."""
_TOLD_AFTER = re.compile(r"[ -]{1,2}(?:office|fax|mobile|phone|cell)\b", re.IGNORECASE)
_LOOK_BACK = 48
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ]?(?:0?[1-9]|1[0-2])[-./ ]?(?:0?[1-9]|[12]\d|3[01])(?:[ -]\d{1,6})?"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|[12]\d|3[01])[-./ ](?:19|20)\d\d"
    r"|(?:19|20)\d\d-(?:19|20)\d\d|\d+\.\d+|\d{1,3}(?:\.\d{1,3}){3}"
)
_REGIONS = {
    "en": ("GB", "AU", "IN", "ZA", "NZ", "IE"),
    "zh": ("TW", "HK", "CN"),
    "de": ("DE", "AT", "CH"),
    "fr": ("FR", "BE", "CH"),
    "es": ("ES", "MX", "AR"),
    "pt": ("BR", "PT"),
    "ru": ("RU", "KZ"),
    "ja": ("JP",),
    "ko": ("KR",),
    "it": ("IT", "CH"),
    "nl": ("NL", "BE"),
    "tr": ("TR",),
    "id": ("ID",),
    "vi": ("VN",),
    "th": ("TH",),
    "sv": ("SE",),
    "uk": ("UA",),
    "pl": ("PL",),
    "cs": ("CZ",),
    "sk": ("SK",),
    "hu": ("HU",),
    "ro": ("RO",),
    "bg": ("BG",),
    "el": ("GR",),
    "da": ("DK",),
    "nb": ("NO",),
    "fi": ("FI",),
    "hr": ("HR",),
    "sr": ("RS",),
    "he": ("IL",),
    "ar": ("EG", "SA", "AE"),
    "fa": ("IR",),
    "hi": ("IN",),
    "bn": ("BD",),
    "ms": ("MY",),
}
_DEFAULT_REGIONS = ("GB", "DE", "FR")


def find_phones(text: str, language: str = "") -> Iterator[tuple[int, int]]:
    """(start, stop) of every phone number; some may overlap, the surer ones come first."""
    for match in _INTERNATIONAL.finditer(text):
        if _possible(match.group()):
            yield match.span()
    for region, pattern in _NATIONAL:
        for match in pattern.finditer(text):
            if _possible_in(match.group(), region, strictly=region == "CN"):
                yield match.span()
    for match in _GROUPS.finditer(text):
        written = match.group()
        if 7 <= sum(c.isdigit() for c in written) <= 15 and not _DATE.fullmatch(written):
            start, stop = match.span()
            begin = max(0, start - _LOOK_BACK)
            if (
                _ANNOUNCED.search(text, begin, start)
                or _TOLD_AFTER.match(text, stop)
                or (_domestic(written, language) and not _NUMBERED.search(text, begin, start))
            ):
                yield match.span()


def _domestic(written: str, language: str) -> bool:
    """Whether it is a valid number of a country of this language, with its leading zero (in
    Russia an eight) or its area in brackets, and groups.
    """
    trunk = "8" if language == "ru" else "0"
    bracketed = written[0] == "(" and language in _REGIONS
    if not bracketed and (written.lstrip("(")[0] != trunk or not re.search(r"[ ./)-]", written)):
        return False
    if _counts_up(written):
        return False
    if "/" in written and not _AREA_CODE_FIRST.match(written):
        return False
    if _ZIP_CODE.fullmatch(written):
        return False
    regions = _REGIONS.get(language, _DEFAULT_REGIONS)
    return any(_possible_in(written, region, strictly=True) for region in regions)


def _counts_up(written: str) -> bool:
    """Whether the groups are a row of numbers with equal steps, as beside a chart."""
    numbers = [int(group) for group in re.findall(r"\d+", written)]
    steps = {after - before for before, after in pairwise(numbers)}
    return len(numbers) > 3 and len(steps) == 1


@lru_cache(maxsize=4096)
def _possible(written: str) -> bool:
    """Whether a number with a country's code may exist: code, length and leading digits."""
    international = "+" + written[2:] if written.startswith("00") else written.replace("+ ", "+")
    try:
        number = phonenumbers.parse(international.replace("(0)", ""), None)
    except phonenumbers.NumberParseException:
        return False
    if written.isdecimal():  # 00 and digits in one run may be any number
        return phonenumbers.is_valid_number(number)
    return phonenumbers.is_possible_number(number)


@lru_cache(maxsize=4096)
def _possible_in(written: str, region: str, strictly: bool) -> bool:
    try:
        number = phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return False
    judge = phonenumbers.is_valid_number if strictly else phonenumbers.is_possible_number
    return bool(judge(number))
