"""Reads crawl archives (WARC, WET, ARC; plain, gzip, lz4, zstd) record by record, surviving damage.

Every record that could be a document comes out exactly once: as a `Page`, as `Skipped` (not text,
an error status, a revisit) or as `Damaged` (with the byte where it happened). After damage the
reader looks for the next record and goes on. FastWARC reads WARC; ARC, which it does not know, is
read here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fastwarc.stream_io import GzipReader, Lz4Reader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from stages.text.http import decode_content, parse_response

MAX_PAGE_BYTES = 16 << 20
_MAX_HEAD_BYTES = 1 << 16
_DOCUMENTS = (
    WarcRecordType.response
    | WarcRecordType.resource
    | WarcRecordType.conversion
    | WarcRecordType.revisit
)
_TEXT_TYPES = re.compile(r"^(text/(html|plain|markdown)|application/xhtml\+xml)", re.I)
_NEXT_WARC = re.compile(rb"WARC/\d")
_GZIP = b"\x1f\x8b\x08"
_GZIP_BLOCK = 1 << 20
_MAGIC: dict[bytes, Any] = {
    _GZIP: GzipReader,
    b"\x04\x22\x4d\x18": Lz4Reader,
    b"\x28\xb5\x2f\xfd": ZstdReader,
}
_ARC_HEADER = re.compile(rb"^(\S.*) (\S+) (\d{4,18}) (\S+) (\S+)\r?\n$")


@dataclass(frozen=True, slots=True)
class Page:
    """A record with text in it: raw bytes with the declared type and charset, or text already."""

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
    """A record that could not be read: why, where in the file, and the library's own words."""

    reason: str
    offset: int
    detail: str = ""
    url: str = ""
    size: int = 0


Record = Page | Skipped | Damaged


def read_archive(path: Path, max_page_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """All document records of one archive, whatever its format and compression."""
    if path.stat().st_size == 0:
        yield Damaged("empty_file", 0)
        return
    try:
        start = _first_bytes(path)
    except (OSError, ValueError) as error:
        yield Damaged("unreadable_archive", 0, str(error))
        return
    if start.startswith(b"filedesc:"):
        yield from _read_arc(path, max_page_bytes)
    elif _NEXT_WARC.search(start):
        yield from _read_warc(path, max_page_bytes)
    else:
        yield Damaged("not_an_archive", 0, f"begins with {start[:40]!r}", size=path.stat().st_size)


def _decompressed(path: Path) -> Any:
    """The archive's bytes behind its compression, told by its first bytes."""
    raw = path.open("rb")
    magic = raw.read(4)
    raw.seek(0)
    for prefix, reader in _MAGIC.items():
        if magic.startswith(prefix):
            return reader(raw)
    return raw


def _first_bytes(path: Path, size: int = 1024) -> bytes:
    if _begins_with_gzip(path):  # not through the reader: it may run into damage further on
        with path.open("rb") as raw:
            try:
                return zlib.decompressobj(31).decompress(raw.read(size), size)
            except zlib.error as error:
                raise ValueError(str(error)) from error
    with _decompressed(path) as stream:
        return bytes(stream.read(size))


def _read_warc(path: Path, max_page_bytes: int) -> Iterator[Record]:
    """Restart the iterator behind every damaged place; each start lies behind the one before."""
    start = 0
    with path.open("rb") as file:
        while start >= 0:
            file.seek(start)
            last, error = start, None
            records = ArchiveIterator(file, record_types=_DOCUMENTS, parse_http=False)
            try:
                for record in records:
                    last = start + record.stream_pos
                    yield from _from_warc(record, last, max_page_bytes)
            except (OSError, ValueError) as found:
                error = found
            if error is None:
                yield from _truncated_end(path, last)
                return
            after = _next_record(path, last)
            end = after if after >= 0 else path.stat().st_size
            yield Damaged("damaged_archive", last, str(error), size=max(0, end - last))
            start = after


def _truncated_end(path: Path, last: int) -> Iterator[Damaged]:
    """A gzip archive that ends inside a member: FastWARC ends there without a word."""
    with path.open("rb") as file:
        file.seek(last)
        member, at = zlib.decompressobj(31), last
        data = file.read(_GZIP_BLOCK) if _begins_with_gzip(path) else b""
        while data:
            try:
                size = len(member.decompress(data))
            except zlib.error:
                return  # bytes behind the last member, which the iterator has judged
            if member.eof:
                at = file.tell() - len(member.unused_data)
                data = member.unused_data or file.read(_GZIP_BLOCK)
                member = zlib.decompressobj(31)
                if not data:
                    return
            else:
                data = file.read(_GZIP_BLOCK)
                if not data and at > last:  # the last record itself has been told
                    lost = file.tell() - at
                    yield Damaged("truncated_archive", at, f"{size} bytes of a record", size=lost)


def _begins_with_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _next_record(path: Path, position: int) -> int:
    """Where the next record begins after `position`, or -1: a WARC line, or a gzip member that
    holds one.
    """
    data = path.read_bytes() if path.stat().st_size < 1 << 30 else b""
    if data.startswith(_GZIP):
        at = data.find(_GZIP, position + 1)
        while at >= 0:
            try:
                if zlib.decompressobj(31).decompress(data[at : at + 4096], 64).startswith(b"WARC/"):
                    return at
            except zlib.error:
                pass  # three bytes that only look like a member's beginning
            at = data.find(_GZIP, at + 1)
        return -1
    match = re.compile(rb"\nWARC/\d").search(data, position + 1)
    return match.start() + 1 if match else -1


def _from_warc(record: WarcRecord, offset: int, max_page_bytes: int) -> Iterator[Record]:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    size = record.content_length
    if record.record_type == WarcRecordType.revisit:
        yield Skipped("revisit", url, offset, size)
        return
    if not url.startswith(("http:", "https:")) and record.record_type == WarcRecordType.resource:
        yield Skipped("not_web", url, offset, size)
        return
    try:
        yield _open_record(record, url, offset, size, max_page_bytes)
    except (OSError, ValueError) as error:
        yield Damaged("bad_http", offset, str(error), url, size)


def _open_record(record: WarcRecord, url: str, offset: int, size: int, limit: int) -> Record:
    """HTTP is parsed here and not by FastWARC: a wrongly chunked body would cost it the records
    behind.
    """
    block = record.reader.read(limit + _MAX_HEAD_BYTES)
    if len(block) < min(size, limit + _MAX_HEAD_BYTES):
        return Damaged("truncated_record", offset, f"{len(block)} of {size} bytes", url, len(block))
    if record.record_type == WarcRecordType.conversion:  # WET: text already
        return _page(url, block, offset, "text/plain", "utf-8", limit)
    if record.is_http:
        return _from_http(block, url, "", offset, limit)
    media_type = record.headers.get("Content-Type") or ""
    if media_type and not _TEXT_TYPES.match(media_type):
        return Skipped("media_type", url, offset, size)
    return _page(url, block, offset, media_type, None, limit)


def _from_http(block: bytes, url: str, media_type: str, offset: int, limit: int) -> Record:
    """A stored HTTP response; `media_type` is the archive's, for a response that does not say."""
    response = parse_response(block)
    if response is None:
        return Damaged("bad_http", offset, f"begins with {block[:20]!r}", url, len(block))
    media_type = response.media_type or media_type
    if response.status != 200:
        return Skipped(f"http_{response.status // 100}xx", url, offset, len(block))
    if media_type and not _TEXT_TYPES.match(media_type):
        return Skipped("media_type", url, offset, len(block))
    try:
        body = decode_content(response, limit)
    except ValueError as error:
        return Damaged("bad_content_coding", offset, str(error), url, len(block))
    return _page(url, body, offset, media_type, response.charset, limit)


def _page(
    url: str, body: bytes, offset: int, media_type: str, charset: str | None, limit: int
) -> Record:
    if len(body) > limit:
        return Damaged("page_too_large", offset, f"more than {limit} bytes", url, limit)
    if not body:
        return Skipped("empty", url, offset, 0)
    kind = (
        "text/plain" if media_type.lower().startswith(("text/plain", "text/mark")) else "text/html"
    )
    return Page(url, body, offset, kind, charset)


def _read_arc(path: Path, max_page_bytes: int) -> Iterator[Record]:
    """ARC 1.0/1.1: a line `URL IP date type length`, then that many bytes (archive.org
    ArcFileFormat).
    """
    with _decompressed(path) as stream:
        reader = _Lines(stream)
        try:
            yield from _arc_records(reader, max_page_bytes)
        except (OSError, ValueError) as error:
            yield Damaged("damaged_archive", reader.position, str(error))


def _arc_records(reader: _Lines, max_page_bytes: int) -> Iterator[Record]:
    while True:
        offset, line = reader.position, reader.readline()
        if not line:
            return
        header = _ARC_HEADER.match(line)
        if header is None:
            continue  # the version block's lines, blank lines, the rest of a damaged record
        url, media_type = header[1].decode("utf-8", "replace"), header[4].decode("latin-1")
        if not header[5].isdigit():
            if header[1].startswith((b"http:", b"https:")):
                yield Damaged("bad_length", offset, f"length {header[5]!r}", url)
            continue
        length = int(header[5])
        block = reader.read(length)
        if not header[1].startswith((b"http:", b"https:")):
            continue  # filedesc:, dns: and other records that are no documents
        if len(block) < length:
            yield Damaged(
                "truncated_record", offset, f"{len(block)} of {length} bytes", url, len(block)
            )
            return
        yield _from_http(block, url, media_type, offset, max_page_bytes)


class _Lines:
    """Buffered lines and blocks over a decompressing reader, counting the decompressed bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self.position = 0

    def readline(self, limit: int = 1 << 16) -> bytes:
        while b"\n" not in self._buffer and len(self._buffer) < limit:
            more = bytes(self._stream.read(1 << 15))
            if not more:
                break
            self._buffer += more
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        return self._take(end)

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            more = bytes(self._stream.read(max(1 << 15, size - len(self._buffer))))
            if not more:
                break
            self._buffer += more
        return self._take(min(size, len(self._buffer)))

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        self.position += size
        return taken
