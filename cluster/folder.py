"""A folder that many processes write, on a file system or an object store (fsspec).

What makes something in it exist is one small file, committed last: by rename on a file system, by
one PUT on an object store. Readers look for that file, so nothing half-written is ever found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.artifact import write_atomically
from cluster.remote import filesystem, reaching


class Folder:
    """A folder at a path or URL. Each process opens its own; nothing is cached between calls.

    An object store that does not answer is an OSError, one that never will a UserError.
    """

    def __init__(self, url: str | Path, staging: Path | None = None) -> None:
        """`staging` is a local folder for files on their way to or from an object store."""
        self.url = str(url).rstrip("/")
        self.fs, root = filesystem(self.url)
        self.root: str = root.rstrip("/")
        self.local = Path(self.root) if "file" in self._protocols() else None
        self.staging = staging

    def _protocols(self) -> tuple[str, ...]:
        protocol = self.fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.url}/{name}", self.staging)

    def names(self, pattern: str) -> list[str]:
        """Paths below the folder that match a glob pattern, relative to it, sorted."""
        if self.local is not None:
            return sorted(p.relative_to(self.local).as_posix() for p in self.local.glob(pattern))
        with reaching(self.url):
            self.fs.invalidate_cache()
            found = self.fs.glob(f"{self.root}/{pattern}")
        return sorted(str(path)[len(self.root) + 1 :] for path in found)

    def read(self, name: str) -> bytes | None:
        """A small file, or None if it is not there."""
        self.fs.invalidate_cache()
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            return bytes(self.fs.cat_file(f"{self.root}/{name}"))
        return None

    def size(self, name: str) -> int | None:
        """A file's size in bytes, or None if it is not there."""
        self.fs.invalidate_cache()
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            return int(self.fs.info(f"{self.root}/{name}")["size"])
        return None

    def commit(self, name: str, data: bytes) -> None:
        """Write a small file in one step, after everything it speaks of."""
        if self.local is not None:
            write_atomically(self.local / name, data)
            descriptor = os.open(self.local, os.O_RDONLY)
            try:  # renames survive a power cut too
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        else:
            with reaching(self.url, writing=True):
                self.fs.pipe_file(f"{self.root}/{name}", data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write a file at; it is durable in the folder when the block ends."""
        if self.local is not None:
            path = self.local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            return
        path = self._staged(f"{uuid.uuid4().hex}-{name}")
        try:
            yield path
            with reaching(self.url, writing=True):
                self.fs.put_file(str(path), f"{self.root}/{name}")
        finally:
            path.unlink(missing_ok=True)

    def fetch(self, name: str) -> Path:
        """The file on this machine: itself, or a copy in the staging folder."""
        if self.local is not None:
            return self.local / name
        path = self._staged(f"{self.root.rpartition('/')[2]}-{name}")
        if not path.exists():
            arriving = self._staged(f"{uuid.uuid4().hex}-arriving")
            with reaching(self.url):
                self.fs.get_file(f"{self.root}/{name}", str(arriving))
            os.replace(arriving, path)
        return path

    def forget(self, name: str) -> None:
        """Remove the copy that `fetch` made, if it made one."""
        if self.local is None:
            self._staged(f"{self.root.rpartition('/')[2]}-{name}").unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Remove every copy that was made here; for when nothing is under way."""
        if self.local is None and self.staging is not None:
            shutil.rmtree(self.staging, ignore_errors=True)

    def _staged(self, name: str) -> Path:
        if self.staging is None:
            raise ValueError(f"{self.url} needs a staging folder on this machine")
        self.staging.mkdir(parents=True, exist_ok=True)
        return self.staging / name

    def remove(self, name: str = "") -> None:
        """Remove one file, or the whole folder; what is gone already is no error."""
        if name:
            with reaching(self.url), contextlib.suppress(FileNotFoundError):
                self.fs.rm_file(f"{self.root}/{name}")
        elif self.local is not None:
            shutil.rmtree(self.local, ignore_errors=True)
        else:
            self.fs.invalidate_cache()
            with reaching(self.url), contextlib.suppress(FileNotFoundError):
                self.fs.rm(self.root, recursive=True)

    def free_bytes(self) -> int | None:
        """Space left on the file system, or None where that is not known."""
        if self.local is None:
            return None
        there: Any = self.local
        while not there.exists():
            there = there.parent
        return shutil.disk_usage(there).free
