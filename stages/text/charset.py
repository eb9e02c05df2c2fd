"""Bytes to text: byte-order mark, HTTP header, meta element, then detection by resiliparse.

Labels lie: a declared charset is believed only if the bytes decode in it with almost no errors.
GB2312 means GB18030 and latin-1 means windows-1252, as browsers read them (WHATWG Encoding
Standard).
"""

from __future__ import annotations

import codecs
import re

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
    "ascii": "cp1252",
    "big5": "big5hkscs",
}
_MAX_ERROR_SHARE = 0.005


def _codec(label: str | None) -> str | None:
    """Python's name for a charset label, as browsers understand it; None if there is no
    such codec.
    """
    if not label:
        return None
    try:
        name = codecs.lookup(label.strip().strip("\"'")).name
    except (LookupError, ValueError):
        return None
    return _BROWSER.get(name, name)


def _try(body: bytes, codec: str | None) -> str | None:
    if codec is None:
        return None
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        text = body.decode(codec, "replace")
        return text if text.count("\ufffd") <= _MAX_ERROR_SHARE * len(text) else None
    except LookupError:  # a codec of bytes to bytes, such as base64
        return None


def decode(body: bytes, declared: str | None = None) -> tuple[str, str]:
    """(text, charset) of a page. Never fails: the last resort replaces what does not decode."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body[len(mark) :].decode(codec, "replace"), codec
    head = body[:4096]
    in_page = [
        match[1].decode("ascii", "ignore") for p in (_META, _XML) if (match := p.search(head))
    ]
    for label in (declared, *in_page):
        found = _codec(label)
        text = _try(body, found)
        if text is not None and found is not None:
            return text, found
    for guess in ("utf-8", detect_encoding(body), "gb18030", "cp1252"):
        found = _codec(guess)
        text = _try(body, found)
        if text is not None and found is not None:
            return text, found
    return body.decode("utf-8", "replace"), "utf-8"
