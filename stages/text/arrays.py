"""Arrays to files, so that a disk which refuses is heard.

NumPy writes to a plain file through C's buffers and does not look whether closing them succeeds: on
a full disk an array is cut short and nothing is said. Here its bytes go through Python's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np


class _Through:
    """A file as NumPy does not know it, so that it calls `write`."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file."""
    with path.open("wb") as file:
        np.save(_Through(file), np.ascontiguousarray(array))


def write_array(file: IO[bytes], array: np.ndarray) -> None:
    """Append the bare numbers to an open file."""
    file.write(np.ascontiguousarray(array).data)
