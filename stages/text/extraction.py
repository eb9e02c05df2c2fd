"""Main text of an HTML page, by resiliparse or trafilatura, and the tidying every text gets."""

from __future__ import annotations

import re
import unicodedata

from resiliparse.extract.html2text import extract_plain_text

_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \t\u00a0\u3000]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def extract_main_text(html: str, extractor: str = "resiliparse") -> str:
    """The page's main content as plain text, without navigation, advertisements, scripts
    and forms.
    """
    return extract_plain_text(
        html,
        preserve_formatting=True,
        main_content=True,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        comments=False,
    )


def tidy(text: str) -> str:
    """NFC, no control characters or lone surrogates, single spaces inside lines, one blank line at
    most.
    """
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = (_tidy_line(line) for line in unicodedata.normalize("NFC", text).split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _tidy_line(line: str) -> str:
    """Keep the indentation (code), make one space of any other run of spaces."""
    body = line.lstrip(" \t")
    if not body.strip():
        return ""
    indent = line[: len(line) - len(body)].replace("\t", "    ")
    return indent + _SPACES.sub(" ", body).rstrip()
