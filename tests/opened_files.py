"""Which files this process opens, as Python's own audit events tell."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_watched: list[tuple[str, list[str]]] = []
_hooked = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watched or isinstance(arguments[0], int):
        return
    path = os.path.realpath(os.fsdecode(arguments[0]))
    for folder, opened in _watched:
        if path.startswith(folder + os.sep):
            opened.append(path)


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """The paths below `folder` that are opened inside the block, in order. Nobody can take a hook
    away again, so there is one for all blocks.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    entry: tuple[str, list[str]] = (os.path.realpath(folder), [])
    _watched.append(entry)
    try:
        yield entry[1]
    finally:
        _watched.remove(entry)
