"""What a training run leaves to be read: `log.jsonl`, one object a step, and TensorBoard events;
`events.jsonl`, what went wrong and what was done about it.

A resumed run continues its own journal: lines from the first that it will write again
(`first_step`) are cut off, so each step appears once. Pretraining numbers a step by those before
it, TRL's loops by those that are done with it. Events stay, for they happened. Only rank 0 writes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from cluster.artifact import timestamp, write_atomically
from stages.tune.sinks import TENSORBOARD, Reporting, Sink, open_sinks

LOG = "log.jsonl"
EVENTS = "events.jsonl"
__all__ = ["EVENTS", "LOG", "TENSORBOARD", "Journal", "read_journal"]


class Journal:
    """Appends one step at a time to `folder`/log.jsonl, TensorBoard and what else is asked for."""

    def __init__(
        self, folder: Path, first_step: int = 0, *, active: bool = True,
        reporting: Reporting | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._reporting = reporting or Reporting()
        self._file: TextIO | None = None
        self._sinks: list[Sink] = []
        if active:
            folder.mkdir(parents=True, exist_ok=True)
            self._open(first_step)

    def _open(self, first_step: int) -> None:
        folder = self.folder
        kept = [line for line in read_journal(folder) if line["step"] < first_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(folder / LOG, text.encode())
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._sinks = open_sinks(self._reporting, folder, first_step)

    def write(self, step: int, **values: float) -> None:
        """Log a step's numbers, null where not finite; TensorBoard gets each under `train/`."""
        if self._file is None:
            return
        said = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **said}) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.write(step, values)

    def event(self, kind: str, step: int, **facts: Any) -> None:
        """Note something out of the ordinary: a skipped step, a rollback, a slow rank, a resume."""
        if self._file is None:
            return
        line = json.dumps({"event": kind, "step": step, "time": timestamp(), **facts})
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def rewind(self, step: int) -> None:
        """Forget what was logged from `step` on: the run went back."""
        if self._file is not None:
            self.close()
            self._open(step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            for sink in self._sinks:
                sink.close()

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
