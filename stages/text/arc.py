"""ARC 1 and 2 records (archive.org's ArcFileFormat), the form of crawls before WARC.

A record is a line `URL IP date type length` (version 2 has five fields more before the length),
then that many bytes of HTTP response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stages.text.members import Members
from stages.text.records import MAX_HEAD_BYTES, Damaged, Record
from stages.text.warc import from_http, has_host

BEGIN = re.compile(rb"(?:filedesc|https?|ftp|dns)[^\n]{0,8192} \d{4,20} [^\n]{1,512}\n")
_HEADER = re.compile(
    rb"(?P<url>\S[^\n]*) \S+ \d{4,20} (?P<type>\S+)(?: \S+ \S+ \S+ \S+ \S+)? (?P<length>\S+)\r?\n"
)
_SEPARATORS = (b"\n", b"\r\n")
_SWALLOWED = re.compile(rb"\n(" + BEGIN.pattern + rb")")


def read_arc(stream: Members, max_page_bytes: int) -> Iterator[Record]:
    """Every web record of an ARC stream."""
    while True:
        stream.pass_blank()
        if not stream.have(1):
            if stream.broken is None:
                return
            yield _damage(stream, stream.member_at, stream.broken)
            continue
        yield from _read_record(stream, max_page_bytes)


def _read_record(stream: Members, limit: int) -> Iterator[Record]:
    offset, line = stream.offset, stream.line()
    header = _HEADER.fullmatch(line)
    if header is None:
        yield _damage(stream, offset, "no ARC record begins here", len(line))
        return
    url, media_type = header["url"].decode("utf-8", "replace"), header["type"].decode("latin-1")
    web = url.startswith(("http:", "https:"))
    if url.startswith("filedesc:"):
        stream.pass_to(BEGIN)  # version lines, however long they say to be
        return
    if not header["length"].isdigit():
        if web:
            yield Damaged("bad_length", offset, f"length {header['length']!r}", url)
        return
    length = int(header["length"])
    block, found = stream.block(length, limit + MAX_HEAD_BYTES if web else 1 << 20, BEGIN)
    sound = found == length and stream.ends_well(offset, BEGIN, _SEPARATORS)
    swallowed = None if sound else _SWALLOWED.search(block + stream.peek(1 << 10))
    if swallowed and found == len(block) and swallowed.start(1) < found:
        stream.give_back(block[swallowed.start(1) :])
        detail = f"length {length}, but a record begins {swallowed.start(1)} bytes on"
        yield Damaged("bad_length", offset, detail, url, swallowed.start(1))
    elif found < length:
        yield _short(stream, url, offset, found, length)
    elif web and not has_host(url):
        yield Damaged("bad_url", offset, "a web address without a host", url, length)
    elif web:  # dns: and other records are no documents
        yield from_http(block, url, media_type, offset, limit)


def _short(stream: Members, url: str, offset: int, found: int, length: int) -> Damaged:
    detail = f"{found} of {length} bytes"
    if stream.broken and not stream.have(1):
        return _damage(stream, offset, f"{detail}; {stream.broken}", found, url)
    return Damaged("truncated_record", offset, detail, url, found)


def _damage(stream: Members, offset: int, detail: str, passed: int = 0, url: str = "") -> Damaged:
    """Pass everything up to the next record, in this member or behind it: one finding."""
    passed += stream.pass_to(BEGIN)
    reason = "damaged_archive"
    if stream.broken and not stream.have(1):
        reason = "truncated_archive" if "ends inside" in stream.broken else reason
        detail = detail if stream.broken in detail else f"{detail}; {stream.broken}"
        passed = stream.mend(BEGIN)
    return Damaged(reason, offset, detail, url, passed)
