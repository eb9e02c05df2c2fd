"""Rows with a text in them: JSONL, JSON, CSV, Parquet and Arrow files.

A row's text is its field `text`, `content` or `raw_content` (or the one that the source names); its
`url` or `id`, and its `language`, are taken along. A row that is broken is one `Damaged`; a broken
row group or line costs itself only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.text.members import Members
from stages.text.records import Damaged, Page, Record, Skipped

TEXT_KEYS = ("text", "content", "raw_content")
_BATCH_ROWS = 512
_JSON_OVERHEAD = 8  # a character may be \\u0000 in JSON, and a row has other fields


def read_jsonl(file: BinaryIO, text_key: str | None, max_page_bytes: int) -> Iterator[Record]:
    """One JSON object a line, compressed or not; `offset` is the line's byte behind it."""
    stream = Members(file)
    longest = _JSON_OVERHEAD * max_page_bytes
    while True:
        offset, line = stream.position, stream.line(longest)
        if not line:
            break
        if len(line) == longest and not line.endswith(b"\n"):
            yield _too_long(stream, offset, longest)
        elif line.strip():
            cut = stream.broken is not None and not line.endswith(b"\n")
            yield _from_json(line, offset, text_key, max_page_bytes, cut)
    if stream.broken is not None:
        reason = "truncated_file" if "ends inside" in stream.broken else "damaged_file"
        yield Damaged(reason, stream.position, stream.broken)


def _too_long(stream: Members, offset: int, longest: int) -> Damaged:
    size = longest
    while (more := stream.line(1 << 20)) and not more.endswith(b"\n"):
        size += len(more)
    size += len(more)
    return Damaged("page_too_large", offset, f"a line of more than {longest} bytes", size=size)


def _from_json(line: bytes, offset: int, text_key: str | None, limit: int, cut: bool) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = "truncated_record" if cut else "bad_json"
        return Damaged(reason, offset, str(error)[:300], size=len(line))
    if not isinstance(row, dict):
        return Damaged("bad_json", offset, f"a {type(row).__name__}, no object", size=len(line))
    return from_row(row, offset, text_key, limit, len(line))


def read_json(file: BinaryIO, text_key: str | None, max_page_bytes: int) -> Iterator[Record]:
    """A JSON array of objects (JSONL under this name is read as such); `offset` is the row."""
    if Members(file).peek(64).lstrip()[:1] != b"[":
        yield from read_jsonl(file, text_key, max_page_bytes)
        return
    stream = Members(file)
    data = b"".join(iter(partial(stream.take, 1 << 20), b""))
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        yield Damaged("bad_json", getattr(error, "pos", 0), str(error)[:300], size=len(data))
        return
    for number, row in enumerate(rows):
        yield from_row(row if isinstance(row, dict) else {}, number, text_key, max_page_bytes)


def read_csv(file: BinaryIO, text_key: str | None, max_page_bytes: int) -> Iterator[Record]:
    """CSV with a header line, in UTF-8; `offset` is the row."""
    csv.field_size_limit(max(1 << 17, 4 * max_page_bytes))
    number = 0
    try:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", "replace", newline="")):
            yield from_row(row, number, text_key, max_page_bytes)
            number += 1
    except csv.Error as error:
        yield Damaged("damaged_file", number, f"CSV: {error}")


def read_parquet(file: BinaryIO, text_key: str | None, max_page_bytes: int) -> Iterator[Record]:
    """A Parquet file, row group by row group; `offset` is the row."""
    try:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
    except pa.ArrowException as error:
        yield Damaged("damaged_file", 0, f"Parquet: {error}"[:300], size=file.seek(0, 2))
        return
    columns = _columns(schema, text_key)
    first = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        batches = table.iter_batches(_BATCH_ROWS, [group], columns)
        yield from _batches(batches, first, rows, text_key, max_page_bytes)
        first += rows


def read_arrow(file: BinaryIO, text_key: str | None, max_page_bytes: int) -> Iterator[Record]:
    """An Arrow stream, as `datasets` saves it, or an Arrow file; `offset` is the row."""
    try:
        magic = file.read(6)
        file.seek(0)
        if magic == b"ARROW1":
            table = pa.ipc.open_file(file)
            batches = (table.get_batch(n) for n in range(table.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(file))
    except pa.ArrowException as error:
        yield Damaged("damaged_file", 0, f"Arrow: {error}"[:300], size=file.seek(0, 2))
        return
    yield from _batches(batches, 0, None, text_key, max_page_bytes)


def _columns(schema: pa.Schema, text_key: str | None) -> list[str] | None:
    """The columns that are looked at, so that no others are read."""
    wanted = {text_key} if text_key else set(TEXT_KEYS)
    if not wanted & set(schema.names):
        return None  # the complaint names what is there
    return [n for n in schema.names if n in wanted | {"url", "id", "language"}]


def _batches(
    batches: Iterator[pa.RecordBatch],
    first: int,
    rows: int | None,
    text_key: str | None,
    limit: int,
) -> Iterator[Record]:
    done = 0
    while True:
        try:
            batch = next(batches, None)
            found = None if batch is None else batch.to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            left = "the rest" if rows is None else f"{rows - done} rows"
            yield Damaged("damaged_file", first + done, f"{left} lost: {error}"[:300])
            return
        if found is None:
            return
        for row in found:
            yield from_row(row, first + done, text_key, limit)
            done += 1


def from_row(
    row: dict[str, Any], offset: int, text_key: str | None, limit: int, size: int | None = None
) -> Record:
    """A row as a page. Lone surrogates (JSON can hold them) become question marks."""
    keys = (text_key,) if text_key else TEXT_KEYS
    text = next((row[key] for key in keys if isinstance(row.get(key), str)), None)
    if text is None:
        found = sorted(str(key) for key in row)[:8]
        detail = f"keys {found}; expected {' or '.join(map(repr, keys))} (`text_key` names another)"
        return Damaged("no_text", offset, detail, size=size or 0)
    url = _sound(str(row.get("url") or row.get("id") or ""))
    text = _sound(text)
    body = text.encode("utf-8")
    if len(body) > limit:
        return Damaged("page_too_large", offset, f"more than {limit} bytes", url, len(body))
    if not body:
        return Skipped("empty", url, offset, 0)
    language = row.get("language")
    language = language if isinstance(language, str) and language else None
    return Page(url, body, offset, "text/plain", "utf-8", text, language)


def _sound(text: str) -> str:
    """Text that UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


Reader = Callable[[BinaryIO, str | None, int], Iterator[Record]]
TABLES: dict[str, Reader] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
}
