"""The document: what the corpus stage makes and every reader of a corpus gets.

A corpus folder holds `documents-*.parquet` with the columns of `SCHEMA`. Files are read in the
order of their names, rows in their order, so every reader sees the same sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import UserError

Split = Literal["train", "heldout"]

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("offset", pa.int64()),
        ("language", pa.string()),
        ("split", pa.string()),
        ("passed", pa.string()),
    ]
)
ROW_GROUP = 1000
"""Documents that a file compresses together: what a look at one of them has to read."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from.

    `source` names the crawl file and `offset` the place in it: the byte where the record begins in
    an archive, the row in a table, the position in a folder's sorted listing. `id` hashes both.
    `passed` names the steps that let it pass, in order, separated by spaces.
    """

    id: str
    text: str
    url: str
    source: str
    language: str
    split: str = "train"
    offset: int = -1
    passed: str = ""


def source_name(document: Document) -> str:
    """The source that a document comes from, as mixtures name it: `source` up to the file."""
    return document.source.partition("/")[0]


class DocumentWriter:
    """Writes one parquet file (zstd) piece by piece; the same documents always give the same
    bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._waiting: list[Document] = []

    def add(self, document: Document) -> None:
        self._waiting.append(document)
        if len(self._waiting) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = {name: [getattr(d, name) for d in self._waiting] for name in SCHEMA.names}
        self._file.write_table(pa.table(columns, schema=SCHEMA))
        self._waiting.clear()


def write_documents(documents: Sequence[Document], path: Path) -> None:
    """Write one parquet file of these documents."""
    writer = DocumentWriter(path)
    for document in documents:
        writer.add(document)
    writer.close()


def find_document(path: Path, document_id: str) -> Document | None:
    """One document of a file by its id: the ids are read, and the rows stored around it."""
    with pq.ParquetFile(path) as file:
        ids = file.read(columns=["id"])["id"]
        row = pc.index(ids, document_id).as_py()
        if row < 0:
            return None
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                found = file.read_row_group(group).slice(row, 1).to_pylist()[0]
                return Document(**{name: found[name] for name in SCHEMA.names if name in found})
            row -= rows
    return None


def document_files(corpus: Path) -> list[Path]:
    """The corpus's parquet files in reading order; none at all is a UserError."""
    files = sorted(corpus.glob("documents-*.parquet"))
    if not files:
        raise UserError(
            f"{corpus} holds no documents-*.parquet: it is not a corpus, or it is empty"
        )
    return files


def read_file(path: Path, split: str | None = None, batch_rows: int = 1024) -> Iterator[Document]:
    """The documents of one parquet file, of one split or of all."""
    with pq.ParquetFile(path) as file:
        yield from _documents_of(file, split, batch_rows)


def _documents_of(file: pq.ParquetFile, split: str | None, batch_rows: int) -> Iterator[Document]:
    names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_rows, columns=names):
        for row in batch.to_pylist():
            if split is None or row["split"] == split:
                yield Document(**row)


def read_documents(corpus: Path, split: str | None = None) -> Iterator[Document]:
    """The documents of a corpus folder, of one split ("train", "heldout") or of all."""
    for path in document_files(corpus):
        yield from read_file(path, split)
