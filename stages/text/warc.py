"""WARC and WET records (ISO 28500), read so that damage costs the damaged record and no other.

A record is believed when another one, or the end, follows it. Where that is not so, its length is
wrong: what it swallowed is given back and read. Every response, resource, conversion and revisit
comes out once; requests, metadata and warcinfo are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from stages.text.http import decode_content, parse_response
from stages.text.members import Members
from stages.text.records import MAX_HEAD_BYTES, Damaged, Record, Skipped, is_text, make_page

BEGIN = re.compile(rb"WARC/\d\.\d+[ \t]*\r*\n")
_SWALLOWED = re.compile(rb"\n(WARC/\d\.\d+[ \t]*\r*\n)")
_HEAD_END = re.compile(rb"\n\r*\n")
_SEPARATORS = (b"\r\n\r\n", b"\n\n")
_DOCUMENTS = ("response", "resource", "conversion", "revisit")
_WEB = ("http:", "https:")


@dataclass(frozen=True, slots=True)
class _Head:
    kind: str
    url: str
    media_type: str
    length: int
    """Bytes of the block; -1 where the head does not say it in digits."""


def read_warc(stream: Members, max_page_bytes: int, size: int | None = None) -> Iterator[Record]:
    """Every document record of a WARC stream; `size` is a plain file's, for judging lengths."""
    while True:
        stream.pass_blank()
        if not stream.have(1):
            if stream.broken is None:
                return
            yield _damage(stream, "damaged_archive", stream.member_at, stream.broken)
            continue
        yield from _read_record(stream, max_page_bytes, size)


def _read_record(stream: Members, limit: int, size: int | None) -> Iterator[Record]:
    offset = stream.offset
    text = _head_bytes(stream)
    if text is None:
        yield _damage(stream, "damaged_archive", offset, "no WARC record begins here")
        return
    head = _parse_head(text)
    if head.length < 0 or (size is not None and head.length > 4 * size):
        yield _damage(stream, "bad_length", offset, "no usable Content-Length", head.url)
        return
    document = head.kind in _DOCUMENTS
    block, found = stream.block(head.length, limit + MAX_HEAD_BYTES if document else 1 << 20, BEGIN)
    sound = found == head.length and stream.ends_well(offset, BEGIN, _SEPARATORS)
    swallowed = None if sound else _SWALLOWED.search(block + stream.peek(1 << 10))
    if swallowed and found == len(block) and swallowed.start(1) < found:
        stream.give_back(block[swallowed.start(1) :])
        detail = f"length {head.length}, but a record begins {swallowed.start(1)} bytes on"
        yield Damaged("bad_length", offset, detail, head.url, swallowed.start(1))
    elif not sound:
        damaged = _unsound(stream, head, offset, found)
        if document or damaged.reason != "bad_length":
            yield damaged
    elif document:
        yield _judge(head, block, offset, limit)


def _head_bytes(stream: Members) -> bytes | None:
    """A record's head with the blank line behind it, or None if there is none here."""
    if not BEGIN.match(stream.peek(64)):
        return None
    for ahead in (1 << 12, MAX_HEAD_BYTES):
        if end := _HEAD_END.search(stream.peek(ahead)):
            return stream.take(end.end())
    stream.take(1)
    return None


def _parse_head(text: bytes) -> _Head:
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    length = fields.get("content-length", "")
    return _Head(
        kind=fields.get("warc-type", "").lower(),
        url=fields.get("warc-target-uri", "").strip("<>"),
        media_type=fields.get("content-type", ""),
        length=int(length) if length.isascii() and length.isdigit() and len(length) < 19 else -1,
    )


def _unsound(stream: Members, head: _Head, offset: int, found: int) -> Damaged:
    """What to say of a record that its length does not fit; goes on behind it."""
    detail = f"{found} of {head.length} bytes"
    if stream.broken and not stream.have(1):
        return _damage(stream, "damaged_archive", offset, f"{detail}; {stream.broken}", head.url)
    if found == head.length:
        more = stream.pass_to(BEGIN)
        return Damaged("bad_length", offset, f"{more} bytes too short", head.url, found + more)
    if stream.have(1):
        return Damaged("bad_length", offset, f"{detail} before the next record", head.url, found)
    return Damaged("truncated_record", offset, detail, head.url, found)


def _damage(stream: Members, reason: str, offset: int, detail: str, url: str = "") -> Damaged:
    """Pass everything up to the next record, in this member or behind it: one finding."""
    passed = stream.pass_to(BEGIN)
    if stream.broken and not stream.have(1):
        detail = detail if stream.broken in detail else f"{detail}; {stream.broken}"
        reason = "truncated_archive" if "ends inside" in stream.broken else reason
        passed = stream.mend(BEGIN)
    return Damaged(reason, offset, detail, url, passed)


def _judge(head: _Head, block: bytes, offset: int, limit: int) -> Record:
    """A sound record: a page, or why it is none."""
    if head.kind == "revisit":  # its content lies in another record, read there
        return Skipped("revisit", head.url, offset, head.length)
    if not head.url.startswith(_WEB) and head.kind != "conversion":
        return Skipped("not_web", head.url, offset, head.length)
    if not has_host(head.url) and head.kind != "conversion":
        return Damaged("bad_url", offset, "a web address without a host", head.url, head.length)
    if head.kind == "conversion":  # WET: text already
        return make_page(head.url, block, offset, "text/plain", "utf-8", limit)
    if head.media_type.startswith("application/http"):
        return from_http(block, head.url, "", offset, limit)
    if not is_text(head.media_type):
        return Skipped("media_type", head.url, offset, head.length)
    return make_page(head.url, block, offset, head.media_type, None, limit)


def has_host(url: str) -> bool:
    """Whether a web address names a host."""
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:  # such as half an IPv6 address
        return False


def from_http(block: bytes, url: str, media_type: str, offset: int, limit: int) -> Record:
    """A stored HTTP response; `media_type` is the archive's, for a response that does not say."""
    response = parse_response(block)
    if response is None:
        return Damaged("bad_http", offset, f"begins with {block[:20]!r}", url, len(block))
    media_type = response.media_type or media_type
    if response.status != 200:
        return Skipped(f"http_{response.status // 100}xx", url, offset, len(block))
    if not is_text(media_type):
        return Skipped("media_type", url, offset, len(block))
    try:
        body = decode_content(response, limit)
    except ValueError as error:
        return Damaged("bad_content_coding", offset, str(error), url, len(block))
    return make_page(url, body, offset, media_type, response.charset, limit)
