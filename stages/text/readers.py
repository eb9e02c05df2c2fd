"""Every record of a unit, whatever its format: `read_unit`.

Formats: archives (WARC, WET, ARC, WACZ), tables (JSONL, JSON, CSV, Parquet, Arrow), loose HTML and
text files, and tar files of them, here or remote.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from stages.text.archives import read_archive
from stages.text.files import open_file
from stages.text.prose import read_packages
from stages.text.records import MAX_PAGE_BYTES, Damaged, Page, Record, Skipped
from stages.text.tables import TABLES
from stages.text.units import Unit, format_of

_TAR_ERRORS = (tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)
_HTML_NAME = re.compile(r"\.(html?|xhtml)$", re.I)


def read_unit(unit: Unit, max_page_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """Every record of a unit, up to its `max_bytes`.

    A damaged file ends in `Damaged`, never in an error; a file that is gone, or changed since it
    was listed, is a UserError, for it may come back.
    """
    left = unit.max_bytes
    for record in _records(unit, max_page_bytes):
        yield record
        if left is not None:
            left -= record.size
            if left <= 0:
                return


def _records(unit: Unit, max_page_bytes: int) -> Iterator[Record]:
    if unit.format == "packages":
        yield from read_packages(unit.packages)
    elif unit.format == "pages":
        yield from _read_pages(unit, max_page_bytes)
    else:
        with open_file(unit.files[0].url, unit.options, unit.files[0].size) as file:
            if unit.format == "archive":
                yield from read_archive(file, max_page_bytes)
            elif unit.format == "tar":
                yield from _read_tar(file, max_page_bytes)
            else:
                yield from TABLES[unit.format](file, unit.text_key, max_page_bytes)


def _read_tar(file: BinaryIO, limit: int) -> Iterator[Record]:
    offset = 0
    try:
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                offset = member.offset_data
                if not member.isfile() or format_of(member.name) != "pages":
                    continue
                if member.size > limit:
                    detail = f"more than {limit} bytes"
                    yield Damaged("page_too_large", offset, detail, member.name, member.size)
                elif (content := archive.extractfile(member)) is not None:
                    yield _from_file(member.name, content.read(), offset)
    except _TAR_ERRORS as error:
        yield Damaged("damaged_file", offset, f"{type(error).__name__}: {error}")


def _read_pages(unit: Unit, limit: int) -> Iterator[Record]:
    for number, page in enumerate(unit.files):
        try:
            with open_file(page.url, unit.options, page.size) as file:
                body = file.read(limit + 1)
        except OSError as error:
            yield Damaged("unreadable_file", number, str(error), page.name)
            continue
        if len(body) > limit:
            detail = f"more than {limit} bytes"
            yield Damaged("page_too_large", number, detail, page.name, page.size or limit)
        else:
            yield _from_file(page.name, body, number)


def _from_file(name: str, body: bytes, offset: int) -> Record:
    if not body:
        return Skipped("empty", name, offset, 0)
    media_type = "text/html" if _HTML_NAME.search(name) else "text/plain"
    return Page(name, body, offset, media_type)
