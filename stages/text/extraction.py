"""Main text of an HTML page, by resiliparse or trafilatura, and the tidying every text gets.

Both keep code blocks line by line with their indentation, and tables a row a line: cells lie
between tabs with resiliparse, between bars with trafilatura. Resiliparse costs a tenth of
trafilatura's time and lets more boilerplate through: `python -m tests.bench extract` prints both.
"""

from __future__ import annotations

import re
import unicodedata

from resiliparse.extract.html2text import extract_plain_text

MAX_DEPTH = 1000
"""Elements in one another. The extractors' time grows with the square of the depth, and no page
that people read comes near.
"""
_BLANK_LINES = re.compile(r"\n{3,}")
_SPACES = re.compile(r"[ \u00a0\u3000]*\t[ \t\u00a0\u3000]*|[ \u00a0\u3000]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_NESTING = re.compile(
    r"<(/?)(?:div|span|table|ul|ol|dl|section|article|blockquote|center|font|b|i|em|strong"
    r"|(script|style))\b|(<!--)",
    re.I,
)
_ENDS = {
    "script": re.compile("</script", re.I),
    "style": re.compile("</style", re.I),
    "<!--": re.compile("-->"),
}
_BOILERPLATE = ["[class*=related]", "[class*=footer]", "[class*=byline]"]


class TooDeep(ValueError):
    """A page whose elements lie in one another beyond reason."""

    reason = "nested_html"


def extract_main_text(html: str, extractor: str = "resiliparse") -> str:
    """The page's main content as plain text, without navigation, advertisements, scripts
    and forms. `extractor` is "resiliparse" or "trafilatura"; ValueError for a page nested too deep.
    """
    html = _SURROGATES.sub("", html)
    _check_depth(html)
    if extractor == "trafilatura":
        return _by_trafilatura(html)
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
        skip_elements=_BOILERPLATE,
    )


def _by_trafilatura(html: str) -> str:
    import trafilatura  # seconds to import, and few need it

    return trafilatura.extract(html, include_comments=False, include_tables=True) or ""


def _check_depth(html: str) -> None:
    if html.count("<") < 2 * MAX_DEPTH:
        return
    depth, place = 0, 0
    while (tag := _NESTING.search(html, place)) is not None:
        place = tag.end()
        if hidden := tag[2] or tag[3]:  # what looks like elements inside is text
            end = _ENDS[hidden.lower()].search(html, place) if not tag[1] else tag
            if end is None:
                return
            place = max(place, end.end())
            continue
        depth = max(0, depth - 1) if tag[1] else depth + 1
        if depth > MAX_DEPTH:
            raise TooDeep(f"elements lie more than {MAX_DEPTH} deep in one another")


def tidy(text: str) -> str:
    """NFC, no control characters or lone surrogates, single spaces (or tabs, between a table's
    cells) inside lines, one blank line at most.
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
    return indent + _SPACES.sub(_one_space, body).rstrip()


def _one_space(run: re.Match[str]) -> str:
    return "\t" if "\t" in run[0] else " "
