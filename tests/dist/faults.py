"""What goes wrong on purpose: ranks that die, hang, dawdle or compute nonsense while they train."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.rank import Leaving
from stages.pretrain import loop, worker
from stages.pretrain.worker import Worker
from stages.tune import decoder, pipeline, saver
from stages.tune.engine import shard_optimizer
from stages.tune.fragments import states_of

HANG_BEGAN = "hang-began.txt"


def train(job: dict[str, Any]) -> None:
    """Train, noting a hash of every row that this rank read, by step."""
    read = Worker.batch

    def noted(worker: Worker) -> Any:
        batch = read(worker)
        note = worker.scratch / f"rows-{worker.mesh.data}-{worker.mesh.data_rank}.jsonl"
        rows = row_hashes(batch.input_ids)
        with note.open("a") as file:
            file.write(json.dumps({"step": worker.step, "rows": rows}) + "\n")
        return batch

    Worker.batch = noted  # type: ignore[method-assign]
    loop.train(job)


def die(job: dict[str, Any], victim: int, step: int, beats: int) -> None:
    """Train; one rank is killed in that step, at its `beats`-th sign of life there."""
    seen = 0
    beat = Worker.beat

    def counted(worker: Worker, doing: str, **more: Any) -> None:
        nonlocal seen
        seen += getattr(worker, "step", None) == step
        if worker.rank == victim and seen == beats:
            os.kill(os.getpid(), signal.SIGKILL)
        beat(worker, doing, **more)

    Worker.beat = counted  # type: ignore[method-assign]
    loop.train(job)


def leave(job: dict[str, Any], victim: int, step: int) -> None:
    """Train; in that step one rank alone hears that its node will be taken away. Returns where the
    group ends for it.
    """
    begin = Worker.set_learning_rate

    def begun(run: Worker) -> float:
        worker.told_to_leave = lambda: run.rank == victim and run.step >= step
        return begin(run)

    Worker.set_learning_rate = begun  # type: ignore[method-assign]
    try:
        loop.train(job)
    except Leaving:
        torch.distributed.barrier()


def hang(job: dict[str, Any], victim: int, step: int) -> None:
    """Train; one rank stops working before a step, for ever."""
    beat = Worker.beat

    def stuck(worker: Worker, doing: str, **more: Any) -> None:
        beat(worker, doing, **more)
        if worker.rank == victim and getattr(worker, "step", None) == step:
            (worker.scratch / HANG_BEGAN).write_text(str(time.time()))
            time.sleep(1e6)

    Worker.beat = stuck  # type: ignore[method-assign]
    loop.train(job)


def spin(job: dict[str, Any], step: int) -> None:
    """Train; from a step on the GPU is busy for hours with nothing."""
    beat = Worker.beat

    def busy(worker: Worker, doing: str, **more: Any) -> None:
        beat(worker, doing, **more)
        if getattr(worker, "step", None) == step and doing == "forward":
            torch.cuda._sleep(1 << 45)

    Worker.beat = busy  # type: ignore[method-assign]
    loop.train(job)


def store_slowly(job: dict[str, Any], victim: int, seconds: float) -> None:
    """Train; one rank's shards take that much longer to write."""
    save_file = saver.save_file

    def slow(*inputs: Any, **options: Any) -> None:
        if os.environ["RANK"] == str(victim):
            time.sleep(seconds)
        save_file(*inputs, **options)

    saver.save_file = slow  # type: ignore[assignment]
    loop.train(job)


def in_forward(change: Callable[[Worker, torch.Tensor], torch.Tensor]) -> None:
    """Hand the loss of every training pass to `change`, with the worker that computes it."""
    summed_loss, read = decoder.summed_loss, Worker.batch
    running: list[Worker] = []

    def noted(worker: Worker) -> Any:
        running[:] = [worker]
        return read(worker)

    def changed(*inputs: Any) -> torch.Tensor:
        loss = summed_loss(*inputs)
        return change(running[0], loss) if torch.is_grad_enabled() else loss

    Worker.batch = noted  # type: ignore[method-assign]
    decoder.summed_loss = pipeline.summed_loss = changed


def dawdle(job: dict[str, Any], victim: int, step: int, seconds: float) -> None:
    """Train; from a step on, one rank takes that much longer for each forward pass."""

    def slow(worker: Worker, loss: torch.Tensor) -> torch.Tensor:
        if worker.rank == victim and worker.step >= step:
            time.sleep(seconds)
        return loss

    in_forward(slow)
    loop.train(job)


def spoil(job: dict[str, Any], victim: int, steps: list[int], how: str) -> None:
    """Train; in some steps one rank's loss or gradient is "nan", "inf", or far too large.

    Notes a hash of what the rank holds before each spoilt step and after it.
    """
    count, begin = Worker.count, Worker.set_learning_rate
    note = Path(job["scratch"]) / f"held-{os.environ['RANK']}.jsonl"
    note.parent.mkdir(parents=True, exist_ok=True)
    hit = set(steps)
    began: dict[int, str] = {}

    def begun(worker: Worker) -> float:
        if worker.step in hit:
            began[worker.step] = state_hash(worker)
        return begin(worker)

    def odd(worker: Worker, loss: torch.Tensor) -> torch.Tensor:
        if worker.rank != victim or worker.step not in hit:
            return loss
        if how == "gradient":  # the loss is as ever, its gradient is not
            return loss + 1e4 * (loss - loss.detach())
        return loss * {"nan": float("nan"), "inf": float("inf"), "loss": 40.0}[how]

    def noted(worker: Worker, seen: Any, norm: float, taken: bool) -> None:
        count(worker, seen, norm, taken)
        if worker.step in hit:
            line = {"step": worker.step, "taken": taken, "before": began.pop(worker.step),
                    "after": state_hash(worker)}  # fmt: skip
            with note.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if not taken and worker.guard.must_go_back:
                hit.clear()  # other data follows, which is sound

    in_forward(odd)
    Worker.set_learning_rate = begun  # type: ignore[method-assign]
    Worker.count = noted  # type: ignore[method-assign]
    loop.train(job)


def poison(job: dict[str, Any], poisoned: set[str], step: int) -> None:
    """Train to a checkpoint of that step; rows of these hashes have a loss that is no number."""

    def odd(worker: Worker, loss: torch.Tensor) -> torch.Tensor:
        mesh = worker.mesh
        batch = worker.data.batch(worker.step, worker.skips, mesh.data_rank, mesh.data)
        return loss * float("nan") if poisoned & set(row_hashes(batch.input_ids)) else loss

    in_forward(odd)
    until(job, step)


def row_hashes(rows: np.ndarray) -> list[str]:
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]


def state_hash(worker: Worker) -> str:
    """All weights and optimizer states on this rank, to the bit."""
    digest = hashlib.sha256()
    optimizer = shard_optimizer(worker.engine)
    held = [getattr(p, "ds_tensor", p) for p in worker.engine.module.parameters()]
    for piece in worker.memory.held:
        tensors, numbers = states_of(optimizer, piece)
        digest.update(json.dumps(numbers).encode())
        held += [piece.view(value) for value in tensors.values()]
    for tensor in held:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def until(job: dict[str, Any], step: int) -> None:
    """Train to a checkpoint of that step and leave the process there, orderly, as if resized."""
    save = Worker.save

    class Enough(Exception):
        pass

    def saved(worker: Worker) -> None:
        save(worker)
        if getattr(worker, "step", None) == step:
            worker.finish()
            raise Enough

    Worker.save = saved  # type: ignore[method-assign]
    try:
        train(job)
    except Enough:
        torch.distributed.barrier()
