"""Writing checkpoints while training goes on, each rank its own shard, and which ones are kept.

`save` copies this rank's pieces to the CPU and returns; a thread writes, flushes and hashes them,
and leaves a receipt. When every rank's receipt of this launch is there, rank 0 commits
`state.json` and removes what the retention policy no longer keeps. One save is under way at a time:
the next one waits for it, on all ranks, so that none waits for another in a collective, where it
could not say that it lives. Ranks speak through the folder alone, so no collective runs beside the
training's own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cluster.artifact import file_sha256
from cluster.errors import UserError, disk_is_full
from cluster.folder import Folder
from stages.tune.checkpoint import (
    FORMAT,
    HEADER,
    STATE,
    Part,
    find_checkpoints,
    remove_checkpoint,
)
from stages.tune.fragments import WEIGHT, Piece, states_of

POLL_S = 0.02
WAIT_S = 1800.0
"""How long a rank waits for the others' part of a checkpoint before it calls the save failed."""
ALIVE_S = 1.0
"""How often a rank that waits says that it lives."""

Numbers = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Snapshot:
    """One rank's share of a checkpoint, copied to the CPU: tensors by file, and plain numbers."""

    files: dict[str, tuple[list[Part], dict[str, Tensor]]]
    numbers: Numbers


def snapshot(
    optimizer: torch.optim.Optimizer,
    held: Sequence[Piece],
    buffers: Mapping[str, Tensor],
    rank: int,
    world: int,
) -> Snapshot:
    """Copy what this rank saves. Rank 0 adds `buffers`, whole."""
    weights: tuple[list[Part], dict[str, Tensor]] = ([], {})
    states: tuple[list[Part], dict[str, Tensor]] = ([], {})
    numbers: Numbers = {}
    for piece in held:
        if piece.written is None:
            continue
        tensors, plain = states_of(optimizer, piece)
        if plain:
            numbers[piece.name] = plain
        start, stop = piece.written
        for kind, value in tensors.items():
            part = Part(piece.name, kind, piece.shape, piece.split, start, stop)
            parts, data = weights if kind == WEIGHT else states
            parts.append(part)
            data[part.key] = _copied(piece.view(value, start, stop))
    for name, value in buffers.items() if rank == 0 else ():
        part = Part(name, WEIGHT, tuple(value.shape), None, 0, value.numel())
        weights[0].append(part)
        weights[1][part.key] = _copied(value.reshape(-1))
    ending = f"{rank:02d}-of-{world:02d}.safetensors"
    return Snapshot({f"weights-{ending}": weights, f"optimizer-{ending}": states}, numbers)


def _copied(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)


class Saver:
    """Saves one rank's shards in the background. `launch` is a token that all ranks share; `alive`
    is called about every second while a save is waited for.
    """

    def __init__(
        self,
        root: Folder,
        launch: str,
        rank: int,
        world: int,
        last: int = 2,
        every: int = 0,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.root, self.launch, self.rank, self.world = root, launch, rank, world
        self.last, self.every = last, every
        self._alive = alive
        self._thread: threading.Thread | None = None
        self._folder = root
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        share: Snapshot,
        state: Mapping[str, Any],
        pinned: Sequence[int] = (),
    ) -> None:
        """Begin to write a checkpoint, after the one before is finished. Every rank calls this;
        `state` counts on rank 0 only. `pinned` steps' checkpoints are never removed.

        Raises what the save before raised.
        """
        self.wait()
        folder = self._folder = self.root / f"step-{step:08d}-{self.launch}"

        def work() -> None:
            try:
                self._write(folder, share)
                if self.rank == 0:
                    self._commit(folder, {**state, "format": FORMAT, "step": step})
                    self._retain(pinned)
            except BaseException as error:
                self._error = error
                self._clear(folder, share)

        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint is complete.

        Raises UserError for a store without space, else what went wrong on this rank.
        """
        if self._thread is None:
            return
        deadline = time.monotonic() + WAIT_S
        while self._thread.is_alive():
            if time.monotonic() < deadline:  # a store that never answers is a hang
                self._alive()
            self._thread.join(ALIVE_S)
        self._thread = None
        if self._error is None and self.rank != 0:
            _await(self._folder, STATE, "0 did not complete the checkpoint", self._alive)
        if self._error is not None:
            error, self._error = self._error, None
            if disk_is_full(error):
                raise UserError(
                    f"no space left in {self.root.url} for a checkpoint ({error}); nothing "
                    "saved before is lost: free some space (`raylm gc`), keep fewer "
                    "(checkpoints.last), then run the same command again"
                ) from error
            raise error

    def _write(self, folder: Folder, share: Snapshot) -> None:
        """This rank's shards, durable, then its receipt."""
        files = []
        for name, (parts, tensors) in share.files.items():
            with folder.writing(name) as path:
                header = json.dumps([part.row() for part in parts])
                save_file(tensors, path, metadata={HEADER: header})
                files.append(
                    {"path": name, "size": path.stat().st_size, "sha256": file_sha256(path)}
                )
        receipt = {"files": files, "numbers": share.numbers}
        folder.commit(_receipt(self.rank), json.dumps(receipt).encode())

    def _clear(self, folder: Folder, share: Snapshot) -> None:
        """Give back the space of this rank's part of a checkpoint that will never be complete. The
        others' parts are theirs to write and to remove; what they leave goes with the next launch.
        """
        with contextlib.suppress(Exception):  # what made the save fail is to be told
            if folder.read(STATE) is not None or (
                self.rank != 0 and folder.read(_receipt(self.rank)) is not None
            ):
                return  # it is complete, or rank 0 may take it for complete at any moment
            for name in (*share.files, _receipt(self.rank)):
                folder.remove(name)
            if folder.local is not None:
                folder.local.rmdir()

    def _commit(self, folder: Folder, state: Mapping[str, Any]) -> None:
        """Wait for every rank's receipt, then make the checkpoint exist."""
        files: list[dict[str, Any]] = []
        numbers: Numbers = {}
        for rank in range(self.world):
            text = _await(folder, _receipt(rank), f"{rank} left no shard")
            receipt = json.loads(text)
            files += receipt["files"]
            numbers |= receipt["numbers"]
        whole = {**state, "files": files, "numbers": numbers}
        folder.commit(STATE, json.dumps(whole).encode())
        for rank in range(self.world):
            folder.remove(_receipt(rank))

    def _retain(self, pinned: Sequence[int]) -> None:
        """Keep the newest few, every so many steps' and the pinned."""
        others = [
            c
            for c in find_checkpoints(self.root)
            if c.step not in pinned
            and not (self.every and c.state.get("due", c.step) % self.every == 0)
        ]
        for checkpoint in others[: -self.last]:
            remove_checkpoint(checkpoint)


def _receipt(rank: int) -> str:
    return f"rank-{rank:02d}.json"


def _await(
    folder: Folder, name: str, lacking: str, alive: Callable[[], None] = lambda: None
) -> bytes:
    """A small file that another rank leaves; TimeoutError where it does not come."""
    deadline = time.monotonic() + WAIT_S
    while (text := folder.read(name)) is None:
        alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"rank {lacking} in {folder.url} within {WAIT_S:.0f} s")
        time.sleep(POLL_S if folder.local else 10 * POLL_S)
    return text
