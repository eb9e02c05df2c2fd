"""Bytes to text: byte-order mark, UTF-8, HTTP header, meta element, then what the bytes look like.

Labels lie, and single-byte charsets decode anything, so a label is believed only as far as the text
it gives looks like writing: East Asian charsets are told by the share of their most frequent
characters, the others by how letters stand in words. GB2312 means GB18030 and latin-1 means
windows-1252, as browsers read them (WHATWG Encoding Standard).
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import lru_cache

from resiliparse.parse.encoding import detect_encoding

_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)""", re.I)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BROWSER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "iso8859-13": "cp1257",
    "tis-620": "cp874",
    "ascii": "cp1252",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "koi8-r": "koi8-u",
}
_EAST_ASIAN = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949")
_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
_MAX_ERROR_SHARE = 0.005
_MIN_FREQUENT_SHARE = 0.12
_SURE_SHARE = 0.25
_WRITTEN = 0.7
_MIN_HIGH_BYTES = 12
_LABEL_MARGIN = 0.1
_RICH_HIGH_BYTES = 60
_SAMPLE_BYTES = 16_384
_JAPANESE_ESCAPE = re.compile(rb"\x1b\$[@B]")
_HIGH = re.compile(rb"[\x80-\xff]")
_MARKUP = re.compile(rb"<(script|style)\b.*?</\1|<[^>]*>", re.S | re.I)
_FREQUENT = frozenset(
    # the most frequent characters of Chinese (simplified, then those that differ traditionally),
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发"
    "后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开"
    "但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并"
    "這個們來為國說時會對過發後裡種經麼學現當沒動還進樣開從實軍無與長機關點業將兩間問並於著"
    # of Korean, and hiragana
    "이다는을의에가고하지로한를사도은대어자시기서나아인그리과해일보있수여으게라정만들부전구장원동제주성"
    "면년오상것신조우무마국와경며스공위당적소할내문했"
) | frozenset(map(chr, range(0x3041, 0x3094)))


def _codec(label: str | None) -> str | None:
    """Python's name for a charset label, as browsers understand it; None if there is no
    such codec of text.
    """
    if not label:
        return None
    try:
        found = codecs.lookup(label.strip().strip("\"'"))
    except (LookupError, ValueError):
        return None
    if not getattr(found, "_is_text_encoding", True):
        return None  # bytes to bytes, such as base64
    return _BROWSER.get(found.name, found.name)


def _try(body: bytes, codec: str) -> str | None:
    """The text, if hardly anything of it had to be replaced."""
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        text = body.decode(codec, "replace")
        return text if text.count("\ufffd") <= _MAX_ERROR_SHARE * len(text) else None


def decode(body: bytes, declared: str | None = None) -> tuple[str, str]:
    """(text, charset) of a page. Never fails: the last resort replaces what does not decode."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace"), codec
    labels = _labels(body, declared)
    if (found := _by_form(body, labels)) is not None:
        return found
    sample = _MARKUP.sub(b" ", body[: 1 << 20])
    sample = _dense(sample) if _HIGH.search(sample) else _dense(body)
    asian = _east_asian(sample, labels)
    if asian is not None:
        return body.decode(asian, "replace"), asian
    trust = 0.0 if len(_HIGH.findall(sample)) >= _RICH_HIGH_BYTES else _LABEL_MARGIN
    guesses = [label for label in labels if label not in (*_EAST_ASIAN, *_WIDE, "utf-8")]
    detected = _codec(detect_encoding(sample))
    guesses += [g for g in (detected, "cp1252") if g and g not in (*guesses, *_WIDE, "utf-8")]
    if guesses[0] == "cp1252" and not trust:
        guesses.reverse()  # what servers say by default; the detector knows better
    best = max(guesses, key=lambda g: _looks_written(sample, g) + trust * (g in labels))
    text = _try(body, best)
    return (text, best) if text is not None else _last_resort(body, labels)


def _labels(body: bytes, declared: str | None) -> list[str]:
    """The charsets that the header and the page claim, the header's first."""
    head = body[:4096]
    in_page = [
        match[1].decode("ascii", "ignore") for p in (_META, _XML) if (match := p.search(head))
    ]
    return [codec for label in (declared, *in_page) if (codec := _codec(label)) is not None]


def _by_form(body: bytes, labels: list[str]) -> tuple[str, str] | None:
    """Charsets whose bytes cannot be mistaken: UTF-8, ISO-2022, UTF-16 and UTF-32."""
    for label in labels:
        wide = label in _WIDE and body[:512].count(0) * 5 > len(body[:512])
        escapes = label.startswith("iso2022") and b"\x1b" in body
        if (wide or escapes) and (text := _try(body, label)) is not None:
            return text, label
    if _JAPANESE_ESCAPE.search(body) and (text := _try(body, "iso2022_jp")) is not None:
        return text, "iso2022_jp"
    text = _try(body, "utf-8")
    if text is None:
        return None
    broken = text.count("\ufffd")
    sound = 0 if text.isascii() else sum(c > "\x7f" for c in text[: 1 << 20]) - broken
    return (text, "utf-8") if sound >= 4 * broken else None


def _dense(body: bytes) -> bytes:
    """A part of the body that has many high bytes, of a bounded length."""
    if len(body) <= _SAMPLE_BYTES:
        return body
    first = _HIGH.search(body)
    starts = range(first.start() if first else 0, len(body), _SAMPLE_BYTES)
    parts = [body[at : at + _SAMPLE_BYTES] for at in starts[:64]]
    return max(parts, key=lambda part: len(_HIGH.findall(part)))


def _east_asian(sample: bytes, labels: list[str]) -> str | None:
    """The East Asian charset in which the bytes are most like writing, if they are in any.

    A label decides where there is too little text to tell.
    """
    high = len(_HIGH.findall(sample))
    claimed = next((label for label in labels if label in _EAST_ASIAN), None)
    if high < _MIN_HIGH_BYTES and _looks_written(sample, "cp1252") <= _WRITTEN:
        return claimed if claimed and _replaced_share(sample, claimed) <= 0.1 else None
    shares = {codec: _frequent_share(sample, codec) for codec in _EAST_ASIAN}
    best = max(shares, key=lambda codec: shares[codec])
    if shares[best] < _SURE_SHARE and _looks_written(sample, "cp1252") > _WRITTEN:
        return None  # words of letters with accents, whatever the label says
    if claimed and shares[claimed] >= 0.9 * shares[best] and _replaced_share(sample, claimed) < 0.1:
        return claimed
    return best if shares[best] >= _MIN_FREQUENT_SHARE else None


def _replaced_share(sample: bytes, codec: str) -> float:
    text = sample.decode(codec, "replace")
    high = [c for c in text if c > "\x7f"]
    return high.count("\ufffd") / max(1, len(high))


def _frequent_share(sample: bytes, codec: str) -> float:
    """The share of the most frequent characters among all that are not ASCII; 0 where much does
    not decode (a piece cut out of a page may begin inside a character).
    """
    high = [c for c in sample.decode(codec, "replace") if c > "\x7f"]
    if not high or high.count("\ufffd") > 2 + 0.02 * len(high):
        return 0.0
    return sum(c in _FREQUENT for c in high) / len(high)


@lru_cache(maxsize=4096)
def _kind(char: str) -> str:
    """A letter's script and case, "" for what is no letter, "M" for a combining mark."""
    category = unicodedata.category(char)
    if category[0] not in "LM":
        return ""
    if category[0] == "M":
        return "M"
    return unicodedata.name(char, "?").split(" ", 1)[0] + category


def _looks_written(sample: bytes, codec: str) -> float:
    """From -1 to 1: how the letters that are not ASCII stand beside their neighbours.

    Read in a wrong single-byte charset, words hold signs, letters of two scripts, capitals behind
    small letters, or rows of accented Latin letters.
    """
    text = sample.decode(codec, "replace")
    points, count = 0.0, 0
    for at in range(1, len(text) - 1):
        char = text[at]
        if char <= "\x7f":
            continue
        count += 1
        here, before, after = _kind(char), _kind(text[at - 1]), _kind(text[at + 1])
        if here == "M":
            points += 1.0 if before else -1.0
        elif not here:
            inside = bool(before and after) or char in "\ufffd" or "\x80" <= char <= "\x9f"
            points += -1.0 if inside else 0.2
        elif any(other[:-2] not in ("", here[:-2]) for other in (before, after)) or (
            here.endswith("Lu") and before.endswith("Ll")
        ):
            points -= 1.0
        elif here.startswith("LATIN") and (text[at - 1] > "\x7f" and before):
            points -= 0.5
        else:
            points += 1.0
    return points / count if count else 0.0


def _last_resort(body: bytes, labels: list[str]) -> tuple[str, str]:
    for codec in (*labels, "cp1250", "gb18030", "cp1252"):
        if (text := _try(body, codec)) is not None:
            return text, codec
    return body.decode("utf-8", "replace"), "utf-8"
