"""Files wherever they lie: found and opened by a local path or a URL (s3://, gs://, https://, ...).

Remote files go through fsspec and are read in ranges, with retries, so a reader seeks in them as in
a local file. A file that goes away or changes while a run reads it is the run's error, not the
file's damage: what was committed stays, and the same command goes on.
"""

from __future__ import annotations

import glob
import io
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from cluster.errors import UserError
from cluster.remote import credentials_of, filesystem
from stages.text.file_hashes import file_hashes

PAUSES_S = (1.0, 4.0, 16.0, 60.0)
"""Between the tries of one range."""
BLOCK_BYTES = 8 << 20
_MARKS = ("md5Hash", "ETag", "etag", "checksum", "LastModified", "last_modified", "mtime")

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: where it lies, its name within its source, its size (0: unknown), and what changes
    with its content, where the place tells it.
    """

    url: str
    name: str
    size: int = 0
    mark: str = ""


def is_remote(place: str) -> bool:
    return "://" in place and not place.startswith("file://")


def find_files(place: str, options: Options | None = None) -> list[FileInfo]:
    """The file, the files of the folder, or those that the pattern (*) means, sorted by name.

    A place that does not exist or cannot be reached is a UserError.
    """
    found = _find_remote(place, options or {}) if is_remote(place) else _find_local(place)
    return sorted(found, key=lambda file: file.name)


def _find_local(place: str) -> list[FileInfo]:
    path = Path(place.removeprefix("file://")).expanduser()
    if path.is_file():
        return [_local_info(path, path.parent)]
    if path.is_dir():
        paths = [p for p in path.rglob("*") if p.is_file()]
        return [_local_info(p, path) for p in paths]
    matches = [Path(p) for p in glob.glob(str(path), recursive=True)]
    if not matches:
        raise UserError(
            f"the source {place} does not exist: give an existing file, folder or pattern"
            " (paths are taken from the folder that the command runs in)"
        )
    root = Path(re.split(r"[*?\[]", str(path))[0] + "x").parent
    return [_local_info(p, root) for p in matches if p.is_file()]


def _local_info(path: Path, root: Path) -> FileInfo:
    """`name` is text that UTF-8 can hold, whatever bytes the file system has."""
    name = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    return FileInfo(str(path), name.decode("utf-8", "replace"), path.stat().st_size)


def _find_remote(place: str, options: Options) -> list[FileInfo]:
    fs, root = filesystem(place, options)
    fs.invalidate_cache()
    try:
        if glob.has_magic(root):
            listed = fs.glob(root, detail=True)
            root = root[: min(root.find(c) for c in "*?[" if c in root)].rpartition("/")[0]
        elif (info := fs.info(root))["type"] == "directory":
            listed = fs.find(root, detail=True)
        else:
            return [_remote_info(fs, info | {"name": root}, root.rpartition("/")[0])]
    except Exception as error:
        if _is_missing(error):
            raise UserError(f"the source {place} does not exist: check the name") from error
        raise _unreachable(place, error) from error
    return [_remote_info(fs, i, root) for i in listed.values() if i["type"] == "file"]


def _remote_info(fs: Any, info: Mapping[str, Any], root: str) -> FileInfo:
    name = str(info["name"])
    mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
    short = name.removeprefix(root).lstrip("/") or name.rpartition("/")[2]
    return FileInfo(fs.unstrip_protocol(name), short, int(info.get("size") or 0), mark.strip('"'))


def _is_missing(error: Exception) -> bool:
    """Whether the place says that there is no such file; fsspec's https:// says so of any error,
    and keeps the true one as its cause.
    """
    cause = error.__cause__
    known = cause is None or getattr(cause, "status", 0) in (404, 410) or isinstance(cause, OSError)
    refused = isinstance(cause, ConnectionError) or "Connect" in type(cause).__name__
    return isinstance(error, FileNotFoundError) and known and not refused


def _is_final(error: Exception) -> bool:
    """Whether asking again is of no use: nothing is there, or not for us (gcsfs has no error of its
    own for that).
    """
    refused = str(error).startswith("Forbidden") or vars(error).get("code") in (401, 403)
    return refused or isinstance(error, FileNotFoundError | PermissionError)


def _unreachable(url: str, error: Exception) -> UserError:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    mend = "check the address and the network"
    if known := credentials_of(url):
        mend = (
            f"check the address, the network and the credentials (from the environment: {known}),"
            " or say `options: {anon: true}` for a public bucket"
        )
    return UserError(f"the source {url} cannot be read ({said}): {mend}")


def open_file(url: str, options: Options | None = None, size: int = 0) -> BinaryIO:
    """Open for reading and seeking. `size` is what was found before: another one is a UserError."""
    if is_remote(url):
        return _open_remote(url, options or {}, size)
    try:
        file = open(url.removeprefix("file://"), "rb")  # noqa: SIM115 (the caller's to close)
    except FileNotFoundError as error:
        raise UserError(f"the source {url} is gone since it was listed: {_GO_ON}") from error
    found = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size and found != size:
        file.close()
        raise _changed(url, size, found)
    return file


_GO_ON = "what was read whole is kept; bring it back and run the same command again"


def _changed(url: str, size: int, found: int) -> UserError:
    return UserError(
        f"the source {url} changed while it was read: {size} bytes when it was listed, now {found};"
        " leave sources as they are during a run, and run the same command again"
    )


def _open_remote(url: str, options: Options, size: int) -> BinaryIO:
    fs, path = filesystem(url, options)
    try:
        info = fs.info(path)
    except Exception as error:
        if _is_missing(error):
            raise UserError(f"the source {url} is gone since it was listed: {_GO_ON}") from error
        raise _unreachable(url, error) from error
    found = int(info.get("size") or 0)
    if size and found and found != size:
        raise _changed(url, size, found)
    if not found or info.get("partial") is False:
        return _spool(fs, path, url)
    return io.BufferedReader(RangedFile(fs, path, url, found), 1 << 17)


def _spool(fs: Any, path: str, url: str) -> BinaryIO:
    """A copy in a temporary file, for a server that answers no ranges."""
    spooled = tempfile.TemporaryFile()  # noqa: SIM115 (the caller's to close)
    try:
        with fs.open(path, "rb", block_size=0) as remote:
            while data := remote.read(1 << 20):
                spooled.write(data)
    except Exception as error:
        spooled.close()
        raise _unreachable(url, error) from error
    spooled.seek(0)
    return cast(BinaryIO, spooled)


class RangedFile(io.RawIOBase):
    """A remote file as a seekable stream: one block at a time, each asked for by its range."""

    def __init__(self, fs: Any, path: str, url: str, size: int) -> None:
        super().__init__()
        self._fs, self._path, self._url, self._size = fs, path, url, size
        self._at = 0
        self._block, self._block_at = b"", 0
        self._whole: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        ahead = self._at - self._block_at
        if not 0 <= ahead < len(self._block):
            if self._at >= self._size:
                return 0
            self._block_at, ahead = self._at, 0
            self._block = self._fetch(self._at, min(self._size, self._at + BLOCK_BYTES))
        part = self._block[ahead : ahead + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _fetch(self, start: int, end: int) -> bytes:
        if self._whole is not None:
            self._whole.seek(start)
            return self._whole.read(end - start)
        for pause in (*PAUSES_S, None):
            try:
                data = bytes(self._fs.cat_file(self._path, start=start, end=end))
                if len(data) == end - start:
                    return data
                if len(data) == self._size:  # the server knows no ranges and sent everything
                    return self._keep_whole(data)[start:end]
                error: Exception = OSError(f"{len(data)} bytes came for {end - start}")
            except Exception as raised:  # each file system has errors of its own
                error = raised
            if pause is None or _is_final(error):
                break
            time.sleep(pause)
        raise UserError(
            f"the source {self._url} stopped answering at byte {start} of {self._size}"
            f" ({type(error).__name__}: {str(error)[:200]}): {_GO_ON}"
        ) from error

    def _keep_whole(self, data: bytes) -> bytes:
        self._whole = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (closed with self)
        self._whole.write(data)
        return data

    def close(self) -> None:
        if not self.closed and self._whole is not None:
            self._whole.close()
        super().close()


def fingerprint(files: Sequence[FileInfo]) -> list[list[Any]]:
    """[name, size, mark] of each: what stands for them in an artifact's id.

    A local file's mark is its hash, a remote one's what its store says of it (such as an ETag).
    """
    local = [Path(file.url) for file in files if not is_remote(file.url)]
    hashes = iter(file_hashes(local))
    return [[f.name, f.size, f.mark if is_remote(f.url) else next(hashes)] for f in files]
