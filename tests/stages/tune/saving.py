"""A training of two ranks that only saves: no model, no engine, no process group."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from cluster.folder import Folder
from stages.tune.checkpoint import Checkpoint
from stages.tune.fragments import Piece
from stages.tune.saver import Saver, Snapshot, snapshot

SIZE = 20_000


def share(step: int, rank: int, world: int = 2) -> Snapshot:
    """This rank's half of one parameter full of `step`, and of an AdamW state full of -`step`."""
    weight = torch.nn.Parameter(torch.full((SIZE // 100, 100), float(step)))
    optimizer = torch.optim.AdamW([weight])
    optimizer.state[weight] = {
        "exp_avg": torch.full_like(weight, -float(step)), "step": torch.tensor(float(step))
    }  # fmt: skip
    half = (SIZE * rank // world, SIZE * (rank + 1) // world)
    held = [Piece("w", tuple(weight.shape), None, weight, 0, SIZE, 0, written=half)]
    return snapshot(optimizer, held, {"counts": torch.tensor([step])}, rank, world)


def save_for_ever(
    url: str, staging: Path, rank: int, launch: str, first: int, environment: dict[str, str]
) -> None:
    """One rank that saves step after step until it is killed. It forks from a server that may be
    older than what the test put into the environment.
    """
    os.environ |= environment
    saver = Saver(Folder(url, staging / launch), launch, rank, world=2)
    for step in range(first, first + 100_000):
        saver.save(step, share(step, rank), {})


def check(checkpoint: Checkpoint) -> None:
    """That every shard is whole and holds what its step saved."""
    assert list(checkpoint.faults()) == []
    step = float(checkpoint.step)
    assert torch.equal(checkpoint.weights()["w"], torch.full((SIZE // 100, 100), step))
    assert (checkpoint.whole("w", "exp_avg") == -step).all()
    assert checkpoint.weights()["counts"].tolist() == [checkpoint.step]
    assert checkpoint.state["numbers"] == {"w": {"step": step}}
