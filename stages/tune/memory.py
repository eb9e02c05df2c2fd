"""A training run's checkpoints as one rank deals with them: taken up, saved, gone back to."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from cluster.folder import Folder
from stages.tune.checkpoint import Checkpoint, discard_after
from stages.tune.engine import shard_optimizer
from stages.tune.first_weights import FirstWeights
from stages.tune.fragments import Piece, buffers
from stages.tune.restore import agree, load
from stages.tune.saver import Saver, snapshot

Fits = Callable[[Checkpoint], bool]


class TrainingMemory:
    """One rank's side of the checkpoints of a run. Every method is called by all ranks alike."""

    def __init__(
        self,
        root: str,
        staging: Path,
        engine: Any,
        held: Sequence[Piece],
        model: Mapping[str, Any],
        last: int,
        every: int,
        rename: Callable[[str], str] = str,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`root` is a path or URL; `held` what this rank has of the engine's parameters; `model`
        the model's shape by field, which a checkpoint must share; `last` and `every` what is kept;
        `rename` turns a parameter's name in the engine's module into the model's; `alive` is called
        while a save is waited for, and as loading gets on.
        """
        self.rename = rename
        self.root = Folder(root, staging)
        self.engine, self.held, self.model = engine, held, model
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._alive = alive
        self.saver = Saver(self.root, self._launch(), self.rank, self.world, last, every, alive)
        hosts: list[str] = [""] * self.world
        dist.all_gather_object(hosts, socket.gethostname())
        self.hosts = hosts

    def _launch(self) -> str:
        """A token that all ranks share and no other launch has."""
        token = [uuid.uuid4().hex[:8]]
        dist.broadcast_object_list(token, src=0)
        return token[0]

    def take_up(self, fits: Fits, first: FirstWeights | None = None) -> Mapping[str, Any]:
        """Load the newest checkpoint that fits, and give its state; without any, load the `first`
        weights (unless the engine has its own), and give an empty state.

        Later checkpoints, of another course of the run, are removed.
        """
        checkpoint = agree(self.root, fits, self.model, self._alive)
        if source := checkpoint or first:
            load(source, self.engine, self.held, self.rename, self._alive)
        self._alive()
        self._leave(checkpoint.step if checkpoint else 0)
        return checkpoint.state if checkpoint else {}

    def _leave(self, step: int) -> None:
        """Once all ranks have loaded: remove what comes after, and copies fetched from afar."""
        dist.barrier()
        if self.rank == 0:
            discard_after(self.root, step)
        self.root.forget_all()
        dist.barrier()

    def go_back(self, fits: Fits) -> Mapping[str, Any] | None:
        """As `take_up`, in the middle of a run; None, and nothing changed, where none fits."""
        self.finish()
        if (checkpoint := agree(self.root, fits, self.model, self._alive)) is None:
            return None
        load(checkpoint, self.engine, self.held, self.rename, self._alive)
        self._leave(checkpoint.step)
        self.saver.launch = self._launch()
        return checkpoint.state

    def finish(self) -> None:
        """Until the last save is complete, for all ranks at once: some may see later that it is
        (file systems remember for seconds that a file was not there).
        """
        self._alive()
        self.saver.wait()
        dist.barrier()

    def save(self, step: int, state: Mapping[str, Any], pinned: Sequence[int] = ()) -> None:
        """Begin to save the engine's weights and states of this moment."""
        self.finish()
        optimizer = shard_optimizer(self.engine)
        extra = buffers(self.engine.module)
        share = snapshot(optimizer, self.held, extra, self.rank, self.world)
        self.saver.save(step, share, {**state, "model": dict(self.model)}, pinned)
