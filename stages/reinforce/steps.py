"""Steps that commit: what a reinforcement run leaves on disk, and from where it goes on.

In the stage's scratch folder:

    steps/000007.json        the step's figures
    rollouts/000007.jsonl    the step's rollouts with their rewards
    commits/000010/          the learner's whole state after step 10, every few steps

Each is written beside and renamed, so a kill loses at most the steps since the last commit, and
these are done again to the same bits. `publish` turns them into `log.jsonl` and TensorBoard
events.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.artifact import write_atomically

Record = dict[str, Any]


class Steps:
    """The steps of one trajectory, numbered from 1. Every `every` steps one commits."""

    def __init__(self, scratch: Path, every: int, keep: int = 2) -> None:
        self.scratch, self.every, self.keep = scratch, every, keep

    def committed(self, limit: int) -> int:
        """The last committed step up to `limit`, with all figures before it; 0 without one."""
        for step in sorted(self._commits(), reverse=True):
            if step <= limit and all(self._figures(n).exists() for n in range(1, step + 1)):
                return step
        return 0

    def folder(self, step: int) -> Path:
        """Where the state after `step` lies."""
        return self.scratch / "commits" / f"{step:06d}"

    def record(self, step: int, figures: Mapping[str, Any], rollouts: Iterable[Record]) -> None:
        """Keep a step's figures and rollouts."""
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in rollouts]
        write_atomically(self._rollouts(step), "".join(lines).encode())
        write_atomically(self._figures(step), json.dumps({"step": step, **figures}).encode())

    def due(self, step: int, last: int) -> bool:
        """Whether the state is to be committed after this step."""
        return step % self.every == 0 or step == last

    def commit(self, step: int, save: Callable[[Path], Any]) -> None:
        """Let `save` write the state after `step`, then make it visible; old ones go."""
        folder = self.folder(step)
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save(beside)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(beside, folder)
        for leftover in folder.parent.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for old in sorted(self._commits())[: -self.keep]:
            shutil.rmtree(self.folder(old))

    def figures(self, last: int) -> list[Record]:
        """The figures of steps 1 to `last`."""
        return [json.loads(self._figures(step).read_text()) for step in range(1, last + 1)]

    def publish(self, out: Path, last: int) -> None:
        """Write log.jsonl, TensorBoard events, and the rollouts of the first and last step."""
        from tensorboard.summary import Writer

        log = self.figures(last)
        text = "".join(json.dumps(line) + "\n" for line in log)
        (out / "log.jsonl").write_text(text, encoding="utf-8")
        board = Writer(str(out / "tensorboard"))
        for line in log:
            for name, value in line.items():
                if name != "step":
                    board.add_scalar(f"train/{name}", float(value), line["step"])
        board.close()
        kept = [
            {"step": step, **json.loads(line)}
            for step in sorted({1, last})
            for line in self._rollouts(step).read_text(encoding="utf-8").splitlines()
        ]
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in kept]
        (out / "rollouts.jsonl").write_text("".join(lines), encoding="utf-8")

    def _commits(self) -> list[int]:
        return [int(folder.name) for folder in (self.scratch / "commits").glob("[0-9]*")]

    def _figures(self, step: int) -> Path:
        return self.scratch / "steps" / f"{step:06d}.json"

    def _rollouts(self, step: int) -> Path:
        return self.scratch / "rollouts" / f"{step:06d}.jsonl"
