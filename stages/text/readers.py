"""Units of reading: one crawl file (or a group of loose pages) that is read, and committed, as a
whole.

`find_units` turns a path into units without reading them; `read_unit` yields every record of one,
as `archives.Page`, `Skipped` or `Damaged`. Formats: archives (WARC, WET, ARC), JSONL (.gz, .zst),
Parquet, loose HTML and text files, and tar files of them.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.stream_io import ZstdReader

from cluster.errors import UserError
from stages.text.archives import MAX_PAGE_BYTES, Damaged, Page, Record, Skipped, read_archive
from stages.text.prose import read_packages

_ENDINGS = (
    ("archive", re.compile(r"(\.(warc|arc)(\.wet)?|\.wet)(\.(gz|lz4|zst|zstd|bad))*$", re.I)),
    ("jsonl", re.compile(r"\.(jsonl|ndjson)(\.gz|\.zst)?$", re.I)),
    ("parquet", re.compile(r"\.parquet$", re.I)),
    ("tar", re.compile(r"\.(tar(\.(gz|xz|bz2))?|tgz)$", re.I)),
    ("pages", re.compile(r"\.(html?|xhtml|txt|md|rst)$", re.I)),
)
FORMATS = tuple(name for name, _ in _ENDINGS)
_PAGES_PER_UNIT = 500
_TEXT_KEYS = ("text", "content", "raw_content")
_HTML_NAME = re.compile(r"\.(html?|xhtml)$", re.I)


@dataclass(frozen=True)
class Unit:
    """What is read and committed as a whole. `key` names it in ids and ledgers, wherever the files
    lie.
    """

    key: str
    format: str
    paths: tuple[str, ...]
    names: tuple[str, ...] = ()
    language: str | None = None
    max_bytes: int | None = None


def format_of(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    return next((found for found, ending in _ENDINGS if ending.search(name)), None)


def find_units(
    path: Path,
    key: str,
    format: str = "auto",
    language: str | None = None,
    max_bytes: int | None = None,
) -> list[Unit]:
    """The units under a file or folder, sorted by name. Nothing to read there is a UserError."""
    if not path.exists():
        raise UserError(
            f"the source {path} does not exist: give an existing file or folder"
            " (paths are taken from the folder that the command runs in)"
        )
    if path.is_file():
        named = format if format != "auto" else format_of(path.name) or "archive"
        return [Unit(f"{key}/{path.name}", named, (str(path),), (path.name,), language, max_bytes)]
    files = sorted(
        (p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).as_posix()
    )
    units, loose = [], []
    for file in files:
        found = format_of(file.name)
        if found is None or (format != "auto" and found != format):
            continue
        name = file.relative_to(path).as_posix()
        if found == "pages":
            loose.append((str(file), name))
        else:
            units.append(Unit(f"{key}/{name}", found, (str(file),), (name,), language, max_bytes))
    for number, first in enumerate(range(0, len(loose), _PAGES_PER_UNIT)):
        paths, names = zip(*loose[first : first + _PAGES_PER_UNIT], strict=True)
        units.append(Unit(f"{key}/pages-{number:05d}", "pages", paths, names, language, max_bytes))
    if not units:
        raise UserError(
            f"the source {path} holds nothing to read; expected archives, .jsonl, .parquet,"
            " .html, .txt or tar files of pages"
            + ("" if format == "auto" else f" of format {format!r}")
        )
    return units


def read_unit(unit: Unit, max_page_bytes: int = MAX_PAGE_BYTES) -> Iterator[Record]:
    """Every record of a unit, up to its `max_bytes`. A damaged file ends in `Damaged`, never in an
    error.
    """
    readers = {
        "archive": lambda: read_archive(Path(unit.paths[0]), max_page_bytes),
        "jsonl": lambda: _read_jsonl(Path(unit.paths[0])),
        "parquet": lambda: _read_parquet(Path(unit.paths[0])),
        "tar": lambda: _read_tar(Path(unit.paths[0])),
        "pages": lambda: _read_pages(unit),
        "packages": lambda: read_packages(unit.names),
    }
    left = unit.max_bytes
    records = readers[unit.format]()
    while left is None or left > 0:
        try:
            record = next(records, None)
        except (OSError, EOFError, tarfile.TarError, pa.ArrowException) as error:
            yield Damaged("damaged_file", 0, f"{type(error).__name__}: {error}")
            return
        if record is None:
            return
        if left is not None:
            left -= record.size
        yield record


def _read_jsonl(path: Path) -> Iterator[Record]:
    with _open_lines(path) as lines:
        offset = 0
        for line in lines:
            if line.strip():
                yield _from_json(line, offset)
            offset += len(line)


def _open_lines(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.name.endswith(".zst"):
        return io.BytesIO(ZstdReader(path.open("rb")).read())
    return path.open("rb")


def _from_json(line: bytes, offset: int) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Damaged("bad_json", offset, str(error), size=len(line))
    return _from_row(row if isinstance(row, dict) else {}, offset, len(line))


def _from_row(row: dict[str, Any], offset: int, size: int) -> Record:
    text = next((row[key] for key in _TEXT_KEYS if isinstance(row.get(key), str)), None)
    if text is None:
        return Damaged("no_text", offset, f"keys {sorted(row)[:8]}; expected 'text'", size=size)
    url = str(row.get("url") or row.get("id") or "")
    body = text.encode("utf-8", "replace")
    language = row.get("language")
    if not body:
        return Skipped("empty", url, offset, 0)
    return Page(url, body, offset, "text/plain", "utf-8", text, language if language else None)


def _read_parquet(path: Path) -> Iterator[Record]:
    row_number = 0
    for batch in pq.ParquetFile(path).iter_batches(512):
        for row in batch.to_pylist():
            yield _from_row(row, row_number, 0)
            row_number += 1


def _read_tar(path: Path) -> Iterator[Record]:
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if not member.isfile() or format_of(member.name) != "pages":
                continue
            file = archive.extractfile(member)
            if file is not None:
                yield _from_file(member.name, file.read(), member.offset_data)


def _read_pages(unit: Unit) -> Iterator[Record]:
    for number, (path, name) in enumerate(zip(unit.paths, unit.names, strict=True)):
        try:
            yield _from_file(name, Path(path).read_bytes(), number)
        except OSError as error:
            yield Damaged("unreadable_file", number, str(error), name)


def _from_file(name: str, body: bytes, offset: int) -> Record:
    if not body:
        return Skipped("empty", name, offset, 0)
    media_type = "text/html" if _HTML_NAME.search(name) else "text/plain"
    return Page(name, body, offset, media_type)
