"""One writer at a time for a store: a file lock for folders, a heartbeat object for object stores.

The file lock is the kernel's, so it ends with the process that holds it, however that dies. A
heartbeat lease is renewed while its writer lives and may be taken over once it has gone stale; a
writer that cannot renew it stops before it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.artifact import timestamp
from cluster.errors import UserError
from cluster.signals import keep_handlers

RENEW_S = 10.0
STALE_S = 60.0
LOST = signal.SIGUSR2
"""Sent to the main thread of a writer that has lost its lease."""


def _holder(what: str) -> dict[str, Any]:
    """Who asks for a lease, for the message that another would-be writer reads."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "what": what, "since": timestamp()}


def _who(holder: dict[str, Any]) -> str:
    return "{what} (process {pid} on {host}, since {since})".format(
        **{"what": "another run", "pid": "?", "host": "?", "since": "?", **holder}
    )


def _busy(place: str, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"the store {place} is being written by {_who(holder)}; one run at a time may write there: "
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

    A writer whose lease was taken over, or could not be renewed in time, gets a UserError: at once
    in the main thread (as Ctrl-C comes there), elsewhere at the end of the block.
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
    heart = _Heart(fs, path, token, what, renew_s, stale_s)
    heart.start()
    try:
        yield
    except BaseException as error:
        if heart.lost:
            raise heart.error() from error
        raise
    finally:
        heart.stop()
    if heart.lost:
        raise heart.error()


class _Heart:
    """Renews a lease from a thread of its own, and tells when that fails for too long.

    Another thread looks at the time, since a store's call may also never return.
    """

    def __init__(
        self, fs: Any, path: str, token: str, what: str, renew_s: float, stale_s: float
    ) -> None:
        self.fs, self.path, self.token, self.what = fs, path, token, what
        self.renew_s, self.stale_s = renew_s, stale_s
        self.lost = ""
        self._fault = "no answer"
        self._renewed = time.monotonic()
        self._stop = threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()

    def start(self) -> None:
        if self._in_main:
            self._before = signal.signal(LOST, self._interrupt)
            keep_handlers([LOST])
        self._threads = [
            threading.Thread(target=work, name=f"lease-{work.__name__}", daemon=True)
            for work in (self._beat, self._guard)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Give the lease back, if it is still this writer's."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self.stale_s)
        if self._in_main:
            signal.signal(LOST, self._before)
        with contextlib.suppress(Exception):  # then it goes stale
            if not self.lost and _read_note(self.fs, self.path).get("token") == self.token:
                self.fs.rm_file(self.path)

    def error(self) -> UserError:
        return UserError(
            f"this run has lost its right to write to {self.path.rpartition('/')[0]}: {self.lost}. "
            "It stopped, so that no two runs write there; finished stages are kept: when no other "
            "run is at work there, the same command goes on"
        )

    def _beat(self) -> None:
        while not self._stop.wait(self.renew_s):
            began = time.monotonic()
            try:
                note = _read_note(self.fs, self.path)
                if note.get("token", self.token) != self.token:
                    self.lost = self.lost or f"{_who(note)} took it over"
                    return
                _write_note(self.fs, self.path, self.token, self.what)
                self._renewed = began
            except Exception as error:  # tried again until another run may take it for dead
                self._fault = " ".join(f"{type(error).__name__}: {error}".split())[:200]

    def _guard(self) -> None:
        while not self._stop.wait(self.renew_s / 10):
            silent_s = time.monotonic() - self._renewed
            if silent_s > self.stale_s - self.renew_s and not self.lost:
                self.lost = f"it could not be renewed for {silent_s:.0f} s ({self._fault})"
            if self.lost:
                break
        while self._in_main and not self._stop.is_set():
            # a real signal: it also ends a wait in C, as Ray's; where it comes to nothing (in a
            # finalizer, say), the next one does not
            signal.pthread_kill(threading.main_thread().ident or 0, LOST)
            self._stop.wait(3 * self.renew_s)  # meanwhile the run may be ending

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.lost and not self._stop.is_set():
            raise KeyboardInterrupt


def _read_note(fs: Any, path: str) -> dict[str, Any]:
    fs.invalidate_cache()
    try:
        return _parse(fs.cat_file(path))
    except FileNotFoundError:
        return {}


def _write_note(fs: Any, path: str, token: str, what: str) -> None:
    fs.pipe_file(path, json.dumps({**_holder(what), "token": token, "beat": time.time()}).encode())
