"""What reading gives: every record of a source is exactly one `Page`, `Skipped` or `Damaged`."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PAGE_BYTES = 16 << 20
MAX_HEAD_BYTES = 1 << 16
_TEXT_TYPES = re.compile(r"^(text/(html|plain|markdown)|application/xhtml\+xml)", re.I)


@dataclass(frozen=True, slots=True)
class Page:
    """A record with text in it: raw bytes with the declared type and charset, or text already.

    `offset` says where the record begins: the byte in the file, where records are compressed one by
    one or not at all; the byte behind the compression, where they share a member; the row of a
    table; the position in a folder's listing.
    """

    url: str
    body: bytes
    offset: int
    media_type: str = "text/html"
    charset: str | None = None
    text: str | None = None
    language: str | None = None

    @property
    def size(self) -> int:
        return len(self.body)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sound record that is no document: why, and its size in bytes."""

    reason: str
    url: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """What could not be read: why, where in the file, the exact words, and how many bytes."""

    reason: str
    offset: int
    detail: str = ""
    url: str = ""
    size: int = 0


Record = Page | Skipped | Damaged


def is_text(media_type: str) -> bool:
    """Whether text can be taken from this media type; an unknown one ("") is tried."""
    return not media_type or _TEXT_TYPES.match(media_type) is not None


def make_page(
    url: str, body: bytes, offset: int, media_type: str, charset: str | None, limit: int
) -> Record:
    """A page of at most `limit` bytes, or why it is none."""
    if len(body) > limit:
        return Damaged("page_too_large", offset, f"more than {limit} bytes", url, limit)
    if not body:
        return Skipped("empty", url, offset, 0)
    plain = media_type.lower().startswith(("text/plain", "text/mark"))
    return Page(url, body, offset, "text/plain" if plain else "text/html", charset)
