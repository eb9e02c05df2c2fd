"""Main text of an HTML page, by resiliparse or trafilatura, and the tidying every text gets.

Both keep code blocks line by line with their indentation, and tables a row a line: cells lie
between tabs with resiliparse, between bars with trafilatura. Resiliparse costs a fifth of
trafilatura's time and lets more boilerplate through, though less than by itself: elements named
after what they hold (newsletters, authors, cookies) go, unless they hold the page, and so do the
labels behind the last sentence; and where it takes the whole page for boilerplate, the page's prose
is the text.
`python -m tests.bench extract` prints how well each does.
"""

from __future__ import annotations

import re
import unicodedata

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from stages.text import markup

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
_NAMED_CLASSES = (
    "related", "footer", "byline", "author", "newsletter", "subscri", "cookie", "breadcrumb",
    "copyright", "popup", "modal", "overlay", "noprint", "no-print", "consent", "mw-editsection",
    "navbox",
)  # fmt: skip
_NAMED_IDS = (
    "newsletter", "cookie-", "cookie_", "footer", "breadcrumb", "popup", "modal", "consent",
)  # fmt: skip
"""Fewer: the ids of a manual's sections are words of its subject."""
_NOT_WHOLE = ":not(body):not(article):not(main)"
_BOILERPLATE = [
    *(f"[class*={name}]{_NOT_WHOLE}" for name in _NAMED_CLASSES),
    *(f"[id*={name}]{_NOT_WHOLE}" for name in _NAMED_IDS),
]
_AROUND = ["nav", "footer", "aside", "form"]
_PRUNED = [
    "//button",
    "//div[contains(@id, 'consent') or contains(@class, 'consent')][not(.//h1 or .//article)]",
    "//*[contains(@class, 'mw-editsection') or contains(@class, 'navbox')]",
]  # fmt: skip
"""What trafilatura leaves in pages that it takes as a whole."""
_FEW_CHARS = 400
"""With less than this, a page is looked at again."""
_LITTLE = 0.33
"""With less than this share of its characters left, a page's names are looked at again."""
_PROSE_CHARS = 60
_LABEL_CHARS = 100
"""A line from the one length on may be prose, and below the other may be a label."""
_SENTENCE_END = re.compile(r"[.!?…。！？:;\"”»)\]]$")
_PARAGRAPH_CELL = re.compile(
    r"(<t[dh]\b[^>]*>)\s*<(p|div)\b[^>]*>"
    r"((?:(?!</?(?:p|div|t[dhr]|table|[uod]l|pre|h[1-6]|blockquote)\b).)*)</\2>\s*(?=</t[dh]>)",
    re.S | re.I,
)
"""A cell whose content is one paragraph, which would become a line of its own."""
_LISTED = re.compile(r"\s*(?:[•*-]|\d+\.)\s|[^\t]+\t")
"""An item of a list, or a row of a table."""


class TooDeep(ValueError):
    """A page whose elements lie in one another beyond reason."""

    reason = "nested_html"


def extract_main_text(html: str, extractor: str = "resiliparse") -> str:
    """The page's main content as plain text, without navigation, advertisements, scripts
    and forms. `extractor` is "resiliparse" or "trafilatura"; ValueError for a page nested too deep.
    """
    try:
        html.encode()  # much faster than a search
    except UnicodeEncodeError:
        html = _SURROGATES.sub("", html)
    _check_depth(html)
    html = _PARAGRAPH_CELL.sub(r"\1\3", html)
    if markup.has_code(html):
        html = markup.without_line_numbers(html)
    return _by_trafilatura(html) if extractor == "trafilatura" else _by_resiliparse(html)


def _by_resiliparse(html: str) -> str:
    code = markup.has_code(html)
    tree = HTMLTree.parse(markup.code_on_its_own_line(html) if code else html)
    markup.move_lists_down(tree)
    text = _plain_text(tree, _BOILERPLATE)
    shown = tree.body.inner_text if tree.body is not None else ""
    little = len(text) < _LITTLE * len(shown)
    if little and markup.unname_frame(tree, _NAMED_CLASSES, _NAMED_IDS, most_chars=len(text)):
        whole = _plain_text(tree, _BOILERPLATE)
        if len(_prose(whole)) > 2 * len(_prose(text)):  # the name was that of the page's frame
            text = whole
    if len(text) < _FEW_CHARS:
        prose = _prose(_plain_text(tree, [*_AROUND, *_BOILERPLATE], main_content=False))
        if len(prose) > max(_FEW_CHARS, 2 * len(text)):
            return prose
    return text if code else _without_labels_at_the_end(text)  # code's last lines look like labels


def _plain_text(tree: HTMLTree, skipped: list[str], main_content: bool = True) -> str:
    return extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=main_content,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        comments=False,
        skip_elements=skipped,
    )


def _prose(text: str) -> str:
    """The lines that are long enough and end as sentences do."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(
        line for line in lines if len(line) >= _PROSE_CHARS and _SENTENCE_END.search(line)
    )


def _without_labels_at_the_end(text: str) -> str:
    """Without the short lines behind the last sentence, list or table (buttons, tags, titles of
    other pages), unless more than a fifth of the text would go.
    """
    end = len(text) + 1
    for line in reversed(text.split("\n")):
        body = line.rstrip()
        if len(body) >= _LABEL_CHARS or _SENTENCE_END.search(body) or _LISTED.match(body):
            break
        end -= len(line) + 1
    return text[: end - 1] if end > 0.8 * len(text) else text


def _by_trafilatura(html: str) -> str:
    import trafilatura  # seconds to import, and few need it

    if markup.has_code(html):
        html = markup.code_as_words(html)
    html = markup.definitions_as_sections(html)
    text = trafilatura.extract(html, include_comments=False, prune_xpath=_PRUNED)
    return markup.words_as_code(text or "")


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
