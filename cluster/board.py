"""What workers and their driver tell each other without Ray: notes in a folder that all see.

Rank 0 leaves its last report there, any rank the error that ended the run, a watch the stacks of a
hang. Notes outlive the worker that wrote them, so a group that starts anew knows how the one before
ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster.errors import UserError

Progress = Callable[[float, float, str], None]

POLL_S = 0.5
BOARD = "RAYLM_BOARD"
"""Environment variable of a worker: the folder where it leaves notes for the driver."""
STARTS = "starts.json"
SPARE = "spare"
SPARE_BYTES = 32 << 10
"""Space taken at launch for the error that ends the run, which may be that there is none left."""


class WorkerError(RuntimeError):
    """A worker's own exception: its type, sentence and traceback, without the layers around it."""


def report(metrics: dict[str, Any], done: float = 0.0, total: float = 0.0, text: str = "") -> None:
    """From inside a loop: publish metrics and progress. Only rank 0's are kept."""
    if os.environ.get("RANK", "0") == "0" and (folder := os.environ.get(BOARD)):
        Board(Path(folder)).write(
            "report.json", {"metrics": metrics, "done": done, "total": total, "text": text}
        )


class Board:
    """A folder where rank 0 leaves its last report, and any rank the error that ended the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            file.unlink()
        with (self.folder / SPARE).open("wb") as spare:
            spare.write(b" " * SPARE_BYTES)
            spare.flush()
            os.fsync(spare.fileno())  # some file systems find a place for it only now

    def write(self, name: str, value: dict[str, Any]) -> None:
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            partial.write_text(json.dumps(value), encoding="utf-8")
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        partial.replace(self.folder / name)

    def write_error(self, error: Exception) -> None:
        kind = "user" if isinstance(error, UserError) else type(error).__name__
        trace = "".join(traceback.format_exception(error))
        note = {"kind": kind, "message": str(error), "trace": trace}
        try:
            self.write("error.json", note)
        except OSError:
            self._write_in_spare("error.json", note)

    def _write_in_spare(self, name: str, note: dict[str, str]) -> None:
        """Over what was kept free for it, with spaces behind, which JSON allows. One rank's note,
        where several have one.
        """
        room = SPARE_BYTES // 32  # a character takes up to 12 bytes in JSON
        short = note | {"message": note["message"][:room], "trace": note["trace"][-room:]}
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            os.rename(self.folder / SPARE, partial)
        except FileNotFoundError:
            return
        with partial.open("r+b") as file:
            file.write(json.dumps(short).encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / name)

    def note_failure(self, error: Exception) -> None:
        """Keep an exception that is worth another try, for the case that it keeps coming."""
        with contextlib.suppress(OSError):
            text = "".join(traceback.format_exception(error))
            self.write("failure.json", {"time": time.time(), "text": text})

    def last_words(self) -> str | None:
        """What is known of the last group's death: where it hung, or what it raised."""
        hang = self.folder / "hang.txt"
        if hang.exists():
            return hang.read_text(encoding="utf-8")
        failure = self._read("failure.json")
        return failure["text"] if failure else None

    def count_start(self, restarts: int, world: int = 1) -> None:
        """Give up where so many groups in a row got no further than any before them.

        A size that was not tried since the last progress is not counted: nodes that come one by one
        make a group start anew for each, and nothing has failed. A group that goes to and fro
        between sizes comes back to one, so it ends too.

        Raises WorkerError; OSError where there is no space to count in, which is the run's end too.
        """
        report = self._read() or {"done": 0.0, "total": 0.0}
        before = self._read(STARTS) or {"reached": -1.0, "fruitless": 0, "starts": 0, "sizes": []}
        cause = self.last_words() or "they were killed, by the system or for want of memory"
        if (hang := self.folder / "hang.txt").exists():
            hang.rename(self.folder / f"hang-{time.time_ns()}.txt")
        (self.folder / "failure.json").unlink(missing_ok=True)
        reached, sizes, fruitless = before["reached"], before["sizes"], before["fruitless"]
        if report["done"] > reached:
            reached, sizes, fruitless = report["done"], [], 0
        elif world in sizes:
            fruitless += 1
        self.write(STARTS, {
            "reached": reached, "fruitless": fruitless, "sizes": sorted({*sizes, world}),
            "starts": before["starts"] + 1, "report": self._read(),
        })  # fmt: skip
        if fruitless > restarts:
            raise WorkerError(
                f"the workers failed {fruitless} times without getting further than "
                f"{reached:g} of {report['total']:g}; the last time: {cause}"
            )

    def took_over(self) -> bool:
        """Whether the group is not the first one and has reported nothing yet."""
        starts = self._read(STARTS)
        return bool(starts and starts["starts"] > 1 and starts["report"] == self._read())

    def has_error(self) -> bool:
        return (self.folder / "error.json").exists()

    def raise_error(self) -> None:
        if not self.has_error():
            return
        error = json.loads((self.folder / "error.json").read_text(encoding="utf-8"))
        if error["kind"] == "user":
            raise UserError(error["message"])
        raise WorkerError(f"{error['kind']}: {error['message']}\n{error['trace']}")

    def _read(self, name: str = "report.json") -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def report(self) -> dict[str, Any] | None:
        value = self._read()
        return value["metrics"] if value else None

    def progress(self) -> tuple[float, float, str] | None:
        value = self._read()
        return (value["done"], value["total"], value["text"]) if value else None


@contextlib.contextmanager
def watched(board: Board, progress: Progress | None) -> Iterator[None]:
    """While inside, hand rank 0's progress to `progress` as it changes."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def poll() -> None:
        seen, stopped = None, False
        while not stopped:
            stopped = stop.wait(POLL_S)  # and read once more: the last report is news too
            if (now := board.progress()) is not None and now != seen:
                seen = now
                progress(*now)

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
