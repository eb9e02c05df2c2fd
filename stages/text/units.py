"""Units of reading: one file (or a group of loose pages) that is read, and committed, as a whole.

`make_units` turns listed files into units without reading them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import UserError
from stages.text.files import FileInfo

_PACKED = r"(\.(gz|zst|zstd|lz4|xz|bz2|bad))*$"
_ENDINGS = (
    ("archive", re.compile(r"(\.(warc|arc)(\.wet)?|\.wet)" + _PACKED + r"|\.wacz$", re.I)),
    ("jsonl", re.compile(r"\.(jsonl|ndjson)" + _PACKED, re.I)),
    ("json", re.compile(r"\.json" + _PACKED, re.I)),
    ("csv", re.compile(r"\.csv$", re.I)),
    ("parquet", re.compile(r"\.parquet$", re.I)),
    ("arrow", re.compile(r"\.arrow$", re.I)),
    ("tar", re.compile(r"\.(tar(\.(gz|xz|bz2))?|tgz)$", re.I)),
    ("pages", re.compile(r"\.(html?|xhtml|txt|md|rst)$", re.I)),
)
_ASKED_FOR = ("json", "csv", "arrow")
"""Formats that a folder of other things may well hold."""
_PAGES_PER_UNIT = 500


@dataclass(frozen=True)
class Unit:
    """What is read and committed as a whole. `key` names it in ids and ledgers, wherever the files
    lie.
    """

    key: str
    format: str
    files: tuple[FileInfo, ...] = ()
    packages: tuple[str, ...] = ()
    language: str | None = None
    max_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    text_key: str | None = None


def format_of(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    return next((found for found, ending in _ENDINGS if ending.search(name)), None)


def make_units(
    files: Sequence[FileInfo],
    key: str,
    format: str = "auto",
    where: str = "",
    dataset: bool = False,
    **fields: Any,
) -> list[Unit]:
    """The units of a source's files, in their order; loose pages last, in groups.

    A folder's .json, .csv and .arrow files are read only if it is a `dataset` or the `format` says
    so. `fields` are those that all units share. Nothing to read is a UserError.
    """
    many = len(files) > 1
    units: list[Unit] = []
    loose: list[FileInfo] = []
    for file in files:
        found = format_of(file.name)
        if not many:  # one file is what the source means: its content tells the rest
            found = format if format != "auto" else found or "archive"
        meant = not many or dataset or format != "auto" or found not in _ASKED_FOR
        if found is None or not meant or format not in ("auto", found):
            continue
        if found == "pages" and many:
            loose.append(file)
        else:
            units.append(Unit(f"{key}/{file.name}", found, (file,), **fields))
    for number, first in enumerate(range(0, len(loose), _PAGES_PER_UNIT)):
        group = tuple(loose[first : first + _PAGES_PER_UNIT])
        units.append(Unit(f"{key}/pages-{number:05d}", "pages", group, **fields))
    if not units:
        raise UserError(
            f"the source {where} holds nothing to read; expected archives, .jsonl, .parquet,"
            " .html, .txt or tar files of pages"
            + ("" if format == "auto" else f" of format {format!r}")
        )
    return units
