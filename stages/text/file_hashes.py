"""Hashes of local files, kept so that a file which has not changed is not read again for its hash.

A hash is remembered with the file's size, inode, and times of its last writing and change, in a
small database of the user's cache (`XDG_CACHE_HOME`, else ~/.cache). Where that cannot be written,
files are hashed every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

WHOLE_FILE_BYTES = 64 << 20
SETTLED_S = 2.0
"""A file that changed less long ago may change again without another time: it is not remembered."""
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 20


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """`file_hash` of each, read only where it is not known."""
    known: dict[str, tuple[str, str]] = {}
    with contextlib.suppress(sqlite3.Error, OSError), _database() as database:
        for name in map(_name, paths):
            asked = database.execute("SELECT state, hash FROM hashes WHERE path = ?", (name,))
            if found := asked.fetchone():
                known[name] = found
    hashes, new = [], []
    for path in paths:
        state, (before, known_hash) = _state(path), known.get(_name(path), ("", ""))
        hashes.append(known_hash if before == state else file_hash(path))
        settled = time.time() - path.stat().st_ctime >= SETTLED_S
        if before != state and settled and _state(path) == state:
            new.append((_name(path), state, hashes[-1]))
    if new:
        with contextlib.suppress(sqlite3.Error, OSError), _database() as database:
            database.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", new)
    return hashes


def file_hash(path: Path) -> str:
    """sha256 of the file; of 64 evenly spaced mebibytes where it is larger than that."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _name(path: Path) -> str:
    return os.fsencode(path.absolute()).decode("utf-8", "replace")


def _state(path: Path) -> str:
    """What changes when the file does."""
    found = path.stat()
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raylm"
    home.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(home / "file-hashes.sqlite", timeout=10)
    try:
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, state TEXT, hash TEXT)"
            )
            yield database
    finally:
        database.close()
