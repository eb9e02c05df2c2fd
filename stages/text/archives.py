"""Reads crawl archives (WARC, WET, ARC, WACZ; plain, gzip, lz4, zstd) record by record.

Every record that could be a document comes out exactly once: as a `Page`, as `Skipped` (not text,
an error status, a revisit) or as `Damaged` (with the byte where it happened). Damage never ends the
reading: the next sound record is looked for.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from stages.text import arc, warc
from stages.text.members import Members
from stages.text.records import MAX_PAGE_BYTES, Damaged, Record

_ZIP = b"PK\x03\x04"


def read_archive(file: BinaryIO, max_page_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """All document records of one archive (a seekable file), told by its content, not its name."""
    size = file.seek(0, 2)
    file.seek(0)
    if not size:
        yield Damaged("empty_file", 0)
    elif file.read(4) == _ZIP:
        yield from _read_wacz(file, max_page_bytes)
    else:
        yield from _read_stream(file, size, max_page_bytes)


def _read_stream(file: BinaryIO, size: int, max_page_bytes: int) -> Iterator[Record]:
    stream = Members(file)
    start = stream.peek(1024)
    if start.startswith(b"filedesc:") or arc.BEGIN.match(start):
        yield from arc.read_arc(stream, max_page_bytes)
    elif warc.BEGIN.search(start):
        yield from warc.read_warc(stream, max_page_bytes, None if stream.codec else size)
    elif stream.broken and not start:
        yield Damaged("damaged_archive", 0, stream.broken, size=size)
    else:
        yield Damaged("not_an_archive", 0, f"begins with {start[:40]!r}", size=size)


def _read_wacz(file: BinaryIO, max_page_bytes: int) -> Iterator[Record]:
    """WACZ: a zip file whose folder `archive` holds WARC files; offsets are those inside them."""
    try:
        with zipfile.ZipFile(file) as package:
            names = [n for n in package.namelist() if n.startswith("archive/") and n[-1] != "/"]
            if not names:
                yield Damaged("not_an_archive", 0, "a zip file without archive/*.warc.gz")
            for name in names:
                with package.open(name) as member:
                    yield from read_archive(member, max_page_bytes)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        yield Damaged("damaged_archive", 0, f"WACZ: {error}", size=file.seek(0, 2))
