"""What a training run leaves to be read: `log.jsonl`, one object a step, and TensorBoard events;
`events.jsonl`, what went wrong and what was done about it.

A resumed run continues its own journal: lines from the first that it will write again
(`first_step`) are cut off, so each step appears once. Pretraining numbers a step by those before
it, TRL's loops by those that are done with it. Events stay, for they happened. Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from cluster.artifact import timestamp, write_atomically
from cluster.errors import UserError
from stages.tune.sinks import TENSORBOARD, Reporting, Sink, openers

LOG = "log.jsonl"
EVENTS = "events.jsonl"
__all__ = ["EVENTS", "LOG", "TENSORBOARD", "Journal", "Sinks", "read_journal"]

OPEN_S = 120.0
"""W&B itself gives up to reach its server after 90 s."""
CLOSE_S = 15.0
"""For all sinks together: less than the silence that counts as a hang."""

LeftOut = Callable[[str, str], None]
"""Told the name of a sink that gets no more numbers, and why."""


class Journal:
    """Appends one step at a time to `folder`/log.jsonl, TensorBoard and what else is asked for."""

    def __init__(
        self, folder: Path, first_step: int = 0, *, active: bool = True,
        reporting: Reporting | None = None,
    ) -> None:  # fmt: skip
        self.folder, self._step = folder, first_step
        self._file: TextIO | None = None
        self._sinks: Sinks | None = None
        if active:
            (folder / TENSORBOARD).mkdir(parents=True, exist_ok=True)
            fresh = not (folder / LOG).exists()
            ways = openers(reporting or Reporting(), folder, first_step, fresh=fresh)
            self._sinks = Sinks(ways, self._left_out, fresh=fresh)
            self._open(first_step)

    def _open(self, first_step: int) -> None:
        kept = [line for line in read_journal(self.folder) if line["step"] < first_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.folder / LOG, text.encode())
        self._file = (self.folder / LOG).open("a", encoding="utf-8")

    def write(self, step: int, **values: float) -> None:
        """Log a step's numbers, null where not finite; TensorBoard gets each under `train/`."""
        if self._file is None or self._sinks is None:
            return
        self._step = step
        said = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **said}) + "\n")
        self._file.flush()
        self._sinks.write(step, values)

    def event(self, kind: str, step: int, **facts: Any) -> None:
        """Note something out of the ordinary: a skipped step, a rollback, a slow rank, a resume,
        ranks that leave, a sink that is left out.
        """
        if self._sinks is not None:
            self._note(kind, step, **facts)

    def _note(self, kind: str, step: int, **facts: Any) -> None:
        line = json.dumps({"event": kind, "step": step, "time": timestamp(), **facts})
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _left_out(self, sink: str, why: str) -> None:
        self._note("sink left out", self._step, sink=sink, why=why)

    def rewind(self, step: int) -> None:
        """Forget what was logged from `step` on: the run went back."""
        if self._file is not None and self._sinks is not None:
            self._file.close()
            self._open(step)
            self._sinks.rewind(step)

    def close(self) -> None:
        if self._file is not None and self._sinks is not None:
            self._file.close()
            self._sinks.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_journal(folder: Path, name: str = LOG) -> list[dict[str, Any]]:
    """The steps logged in `folder`, or its `EVENTS`; a line cut by a kill is left out."""
    path = folder / name
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


class Sinks:
    """All sinks of a run. They serve a training and never end one: what cannot be opened, written
    or closed in time is left out, and noted. Only a run that begins is refused what its user can
    put right.
    """

    def __init__(
        self, ways: Mapping[str, Callable[[], Sink]], left_out: LeftOut, *, fresh: bool
    ) -> None:
        """Open them; for a `fresh` run, raise the UserErrors among what fails."""
        self._left_out = left_out
        self._sinks: dict[str, Sink] = {}
        for name, way in ways.items():
            opening = _Attempt(way)
            if opening.failed(OPEN_S):
                if fresh and isinstance(opening.error, UserError):
                    self.close()
                    raise opening.error
                left_out(name, f"opening it: {opening.why}")
            else:
                self._sinks[name] = opening.result

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(step, values)
            except Exception as error:
                self._drop(name, f"writing to it: {_named(error)}")
                _Attempt(sink.close)  # in its own time

    def rewind(self, step: int) -> None:
        self._all("going back", {n: partial(s.rewind, step) for n, s in self._sinks.items()})

    def close(self) -> None:
        """Wait for those that take their time, but no longer than `CLOSE_S`."""
        self._all("closing it", {name: sink.close for name, sink in self._sinks.items()})
        self._sinks = {}

    def _all(self, doing: str, work: Mapping[str, Callable[[], None]]) -> None:
        attempts = {name: _Attempt(function) for name, function in work.items()}
        deadline = time.monotonic() + CLOSE_S
        for name, attempt in attempts.items():
            if attempt.failed(max(0.0, deadline - time.monotonic())):
                self._drop(name, f"{doing}: {attempt.why}")

    def _drop(self, name: str, why: str) -> None:
        del self._sinks[name]
        self._left_out(name, why)


class _Attempt:
    """A call in a thread of its own, which nobody has to wait for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._function, self._waited_s = function, 0.0
        self._thread = threading.Thread(target=self._run, name="reporting", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error

    def failed(self, limit_s: float) -> bool:
        """Whether it raised, or does not end within so many seconds."""
        self._waited_s = limit_s
        self._thread.join(limit_s)
        return self._thread.is_alive() or self.error is not None

    @property
    def why(self) -> str:
        """What is said of a failure."""
        if self.error is not None:
            return _named(self.error)
        return f"no end after {self._waited_s:.0f} s"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
