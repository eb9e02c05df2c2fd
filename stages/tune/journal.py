"""What a training run leaves to be read: `log.jsonl`, one object a step, and TensorBoard events.

A resumed run continues its own journal: lines after the step it resumes from are cut off first, so
each step appears once. Only rank 0 writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"


class Journal:
    """Appends one step at a time to `folder`/log.jsonl and `folder`/tensorboard."""

    def __init__(self, folder: Path, first_step: int = 0, *, active: bool = True) -> None:
        self.folder = folder
        self._file: TextIO | None = None
        self._board: Any = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_journal(folder) if line["step"] < first_step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        (folder / LOG).write_text(text, encoding="utf-8")
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step)

    def write(self, step: int, **values: float) -> None:
        """Log a step's numbers; TensorBoard gets each under `train/`."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The steps logged in `folder`; a last line cut by a kill is left out."""
    path = folder / LOG
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
