"""Markup that the extractors misread, put so that they read it rightly.

Resiliparse passes over any list that lies near the root, takes an element by its class for
boilerplate though it holds the page, and indents a code block's first line alone inside a list.
Trafilatura drops the empty lines of code, its line breaks where they are elements, and tables in
lists of definitions. Highlighters number lines beside the code. Each function mends one of these
and leaves all else as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

from resiliparse.parse.html import ElementNode, HTMLTree

_PRE = re.compile(r"(<pre\b[^<>]*>)([^<]*(?:<(?!/?pre\b)[^<]*)*)</pre\s*>", re.I)
_NUMBER = re.compile(
    r"<(span|a|td)\b[^<>]{0,200}\bclass=[\"']?(?:[^\"'<>]{0,200}\s)?"
    r"(?:lineno|linenos|line-?number|hljs-ln-numbers)\b[^<>]{0,200}>\s*\d+\s*</\1>",
    re.I,
)
_BETWEEN = r"(?:\s|</?(?:span|a|b|i|br|div|code)\b[^<>]*>)"
_GUTTER = re.compile(
    rf"(<td\b[^<>]*>(?:\s|<div\b[^<>]*>)*<pre\b[^<>]*>){_BETWEEN}*1(?:{_BETWEEN}+\d+)+"
    rf"{_BETWEEN}*(?=</pre)",
    re.I,
)
_DEFINITION = re.compile(r"<(/?)d[ld]\b", re.I)
_TERM = re.compile(r"<(/?)dt\b", re.I)
_LINE_END = re.compile(r"(?:(?:<br\s*/?>)?</(?:div|li|tr|p)\s*>|<br\s*/?>)\n?", re.I)
_TAG = re.compile(r"<[^<>]*>")
_SPACES = re.compile(r"^ +|(?<= ) +")
_NEWLINE, _SPACE = "\u240a", "\u2420"  # the symbols for line feed and space
_WRITTEN_NEWLINE = re.compile(f" *{_NEWLINE} *")
_NAVIGATION_DEPTH = 3
"""Elements under the body from which on resiliparse believes a list to be content."""
_FRAME_DEPTH = 40
_NO_CONTENT = frozenset({"header", "nav", "footer", "aside"})
_LINK = re.compile(r"<a\b[^<>]*>(.*?)</a>", re.S)
_LINK_SHARE = 0.5


def has_code(html: str) -> bool:
    """Whether there is a block of preformatted text."""
    return "<pre" in html or "<PRE" in html


def without_line_numbers(html: str) -> str:
    """Without the numbers that highlighters put before each line of code, or in a cell beside."""
    return _GUTTER.sub(r"\1", _NUMBER.sub("", html))


def code_on_its_own_line(html: str) -> str:
    """Every block of code begins with an empty line, so that no list's indentation meets it."""
    return _PRE.sub(r"\1\n\n\2</pre>", html)


def code_as_words(html: str) -> str:
    """Code with symbols instead of its line breaks and indentation, which pass any extractor."""
    if _NEWLINE in html or _SPACE in html:
        return html
    return _PRE.sub(lambda match: f"{match[1]}{_as_words(match[2])}</pre>", html)


def _as_words(code: str) -> str:
    lines = _TAG.sub("", _LINE_END.sub("\n", code)).strip("\n").split("\n")
    marked = (
        _SPACES.sub(lambda run: _SPACE * len(run[0]), line.expandtabs(4).rstrip()) for line in lines
    )
    return _NEWLINE + _NEWLINE.join(marked) + _NEWLINE


def definitions_as_sections(html: str) -> str:
    """Lists of definitions that may hold tables, of which trafilatura would make running text."""
    if "<table" not in html:
        return html
    return _TERM.sub(r"<\1p", _DEFINITION.sub(r"<\1div", html))


def words_as_code(text: str) -> str:
    """Undo `code_as_words` in what was extracted."""
    if _NEWLINE not in text:
        return text
    return _WRITTEN_NEWLINE.sub("\n", text).replace(_SPACE, " ")


def move_lists_down(tree: HTMLTree) -> None:
    """Lists near the root that are not mostly links lie as deep as content does."""
    if tree.body is not None:
        for element in list(_lists_near(tree.body, _NAVIGATION_DEPTH)):
            text = len(element.inner_text)
            links = sum(len(_TAG.sub("", link)) for link in _LINK.findall(element.html))
            if text and links < _LINK_SHARE * text:
                _wrap(tree, element)


def _lists_near(element: ElementNode, depth: int) -> Iterator[ElementNode]:
    """The lists among the descendants, so many levels down; a query would take n^2 for n lists."""
    for child in _children(element):
        if child.tag == "ul":
            yield child
        elif depth > 1 and child.tag not in _NO_CONTENT:
            yield from _lists_near(child, depth - 1)


def _children(element: ElementNode) -> Iterator[ElementNode]:
    child = element.first_element_child
    while child is not None:
        yield child
        child = child.next_element_sibling


def _wrap(tree: HTMLTree, element: ElementNode) -> None:
    boxes = [cast(ElementNode, tree.create_element("div")) for _ in range(_NAVIGATION_DEPTH)]
    element.replace_with(boxes[0])
    for outer, inner in pairwise([*boxes, element]):
        outer.append_child(inner)


def unname_frame(
    tree: HTMLTree, class_names: Sequence[str], id_names: Sequence[str], most_chars: int
) -> bool:
    """Take class and id from the elements around the page's largest part, as long as they hold
    more than `most_chars`, if one of these names is in them; whether any was.
    """
    found = False
    element = tree.body
    for _ in range(_FRAME_DEPTH):
        element = _largest_child(element, most_chars) if element is not None else None
        if element is None:
            break
        classes, name = element.getattr("class") or "", element.getattr("id") or ""
        if any(part in classes for part in class_names) or any(part in name for part in id_names):
            element.setattr("class", "")
            element.setattr("id", "")
            found = True
    return found


def _largest_child(element: ElementNode, most_chars: int) -> ElementNode | None:
    sizes = [(len(child.inner_text), child) for child in _children(element)]
    chars, largest = max(sizes, key=lambda size: size[0], default=(0, None))
    return largest if chars > most_chars else None
