"""Chinese punctuation, so that templates can be typed with the keyboard's."""

from __future__ import annotations

_FULL_WIDTH = str.maketrans(
    {",": "\uff0c", "?": "\uff1f", "!": "\uff01", ":": "\uff1a", ";": "\uff1b"}
)


def full_width(text: str) -> str:
    """`text` with full-width commas, colons, semicolons, question and exclamation marks."""
    return text.translate(_FULL_WIDTH)


def comma(language: str) -> str:
    """What separates the items of a list: ", ", or the full-width comma in Chinese."""
    return ", " if language == "en" else "\uff0c"
