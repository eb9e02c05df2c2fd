"""One writer at a time for a store: a file lock for folders, a heartbeat object for object stores.

The file lock is the kernel's, so it ends with the process that holds it, however that dies. A
heartbeat lease is renewed while its writer lives and may be taken over once it has gone stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.artifact import timestamp
from cluster.errors import UserError

RENEW_S = 10.0
STALE_S = 60.0


def _holder(what: str) -> dict[str, Any]:
    """Who asks for a lease, for the message that another would-be writer reads."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "what": what, "since": timestamp()}


def _busy(place: str, holder: dict[str, Any]) -> UserError:
    who = "{what} (process {pid} on {host}, since {since})".format(
        **{"what": "another run", "pid": "?", "host": "?", "since": "?", **holder}
    )
    return UserError(
        f"the store {place} is being written by {who}; one run at a time may write there: "
        "wait for it, stop it, or give another store with --set store=FOLDER"
    )


@contextlib.contextmanager
def file_lease(folder: Path, what: str) -> Iterator[None]:
    """Hold the store in `folder`; a UserError naming the holder if another process does.

    Child processes do not keep it: the descriptor is closed on exec, and by hand after a fork.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(
            f"the store {folder} cannot be written: {error.strerror} ({error.filename}); give a "
            "folder that can be with --set store=FOLDER"
        ) from error
    held = [descriptor]
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(str(folder), _parse(os.pread(descriptor, 4096, 0))) from None
        os.register_at_fork(after_in_child=lambda: _close_all(held))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_holder(what)).encode(), 0)
        yield
    finally:
        _close_all(held)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _parse(data: bytes) -> dict[str, Any]:
    """The holder's note; one cut short by a kill says nothing."""
    try:
        note = json.loads(data)
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


@contextlib.contextmanager
def heartbeat_lease(
    fs: Any, path: str, what: str, renew_s: float = RENEW_S, stale_s: float = STALE_S
) -> Iterator[None]:
    """Hold an object-store lease at `path` (fsspec file system `fs`), renewed every `renew_s`.

    A lease not renewed for `stale_s` counts as dead and is taken over. Object stores give no
    lock, so after writing ours we wait a moment and read it back: the last writer wins, the others
    see a foreign token and give way.
    """
    token = uuid.uuid4().hex
    try:
        note = _read_note(fs, path)
        free = not note or time.time() - float(note.get("beat", 0)) >= stale_s
        if free:
            _write_note(fs, path, token, what)
    except Exception as error:  # each file system has errors of its own
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"the store {path.rpartition('/')[0]} cannot be written ({said}): check that the"
            " bucket exists, the network and the credentials, or give another store with"
            " --set store=..."
        ) from error
    if not free:
        raise _busy(path, note)
    time.sleep(min(1.0, renew_s / 10))
    note = _read_note(fs, path)
    if note.get("token") != token:
        raise _busy(path, note)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(renew_s):
            _write_note(fs, path, token, what)

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if _read_note(fs, path).get("token") == token:
            fs.rm_file(path)


def _read_note(fs: Any, path: str) -> dict[str, Any]:
    fs.invalidate_cache()
    try:
        return _parse(fs.cat_file(path))
    except FileNotFoundError:
        return {}


def _write_note(fs: Any, path: str, token: str, what: str) -> None:
    fs.pipe_file(path, json.dumps({**_holder(what), "token": token, "beat": time.time()}).encode())
