"""The document: what the corpus stage makes and every reader of a corpus gets.

A corpus folder holds `documents-*.parquet` with the columns of `SCHEMA`. Files are read in the
order of their names, rows in their order, so every reader sees the same sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
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
    ]
)


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from.

    `source` names the crawl file and `offset` the place in it: the byte where the record begins in
    an archive, the row in a table, the position in a folder's sorted listing. `id` hashes both.
    """

    id: str
    text: str
    url: str
    source: str
    language: str
    split: str = "train"
    offset: int = -1


def source_name(document: Document) -> str:
    """The source that a document comes from, as mixtures name it: `source` up to the file."""
    return document.source.partition("/")[0]


def write_documents(documents: Sequence[Document], path: Path) -> None:
    """Write one parquet file (zstd); the same documents always give the same bytes."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for document in documents:
        for name, value in asdict(document).items():
            columns[name].append(value)
    pq.write_table(pa.table(columns, schema=SCHEMA), path, compression="zstd")


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
    names = SCHEMA.names
    for batch in pq.ParquetFile(path).iter_batches(batch_rows, columns=names):
        for row in batch.to_pylist():
            if split is None or row["split"] == split:
                yield Document(**row)


def read_documents(corpus: Path, split: str | None = None) -> Iterator[Document]:
    """The documents of a corpus folder, of one split ("train", "heldout") or of all."""
    for path in document_files(corpus):
        yield from read_file(path, split)
