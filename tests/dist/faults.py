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

import torch
from deepspeed.runtime.zero.muon import original_muon

from stages.pretrain import loop
from stages.pretrain.worker import Worker
from stages.tune import passes
from stages.tune.work_clock import WorkClock


def train(job: dict[str, Any]) -> None:
    """Train, noting a hash of every row that this rank read, by step.

    DeepSpeed's Muon orthogonalises in bfloat16, which makes 1e-4 of a difference of 1e-7; here in
    float32, so that shapes can be compared.
    """
    original_muon.ns_compute_dtype = lambda _: torch.float32
    read = Worker.batch

    def noted(worker: Worker, shards: Any) -> Any:
        batch = read(worker, shards)
        note = worker.scratch / f"rows-{worker.mesh.data}-{worker.mesh.data_rank}.jsonl"
        rows = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in batch.input_ids]
        with note.open("a") as file:
            file.write(json.dumps({"step": worker.step, "rows": rows}) + "\n")
        return batch

    Worker.batch = noted  # type: ignore[method-assign]
    loop.train(job)


def die(job: dict[str, Any], victim: int, beats: int) -> None:
    """Train; one rank is killed when it has given that many signs of life."""
    seen = 0
    beat = Worker.beat

    def counted(worker: Worker, doing: str) -> None:
        nonlocal seen
        seen += 1
        if worker.rank == victim and seen >= beats:
            os.kill(os.getpid(), signal.SIGKILL)
        beat(worker, doing)

    Worker.beat = counted  # type: ignore[method-assign]
    loop.train(job)


def hang(job: dict[str, Any], victim: int, step: int) -> None:
    """Train; one rank stops working before a step, for ever."""
    beat = Worker.beat

    def stuck(worker: Worker, doing: str) -> None:
        beat(worker, doing)
        if worker.rank == victim and worker.step == step:
            time.sleep(1e6)

    Worker.beat = stuck  # type: ignore[method-assign]
    loop.train(job)


def in_forward(change: Callable[[Worker, torch.Tensor], torch.Tensor]) -> None:
    """Hand the loss of every training pass to `change`, with the run it is part of."""
    forward, read = passes._PlainPasses._forward, Worker.batch
    running: list[Worker] = []

    def noted(worker: Worker, shards: Any) -> Any:
        running[:] = [worker]
        return read(worker, shards)

    def changed(self: Any, rows: Any, module: Any) -> torch.Tensor:
        loss = forward(self, rows, module)
        return change(running[0], loss) if torch.is_grad_enabled() else loss

    Worker.batch = noted  # type: ignore[method-assign]
    passes._PlainPasses._forward = changed  # type: ignore[method-assign]


def dawdle(job: dict[str, Any], victim: int, step: int, times: float) -> None:
    """Train; from a step on, one rank's work takes as many times as long, by its clock."""
    at = [0]
    set_rate = Worker.set_learning_rate

    def noted(worker: Worker) -> float:
        at[0] = worker.step
        return set_rate(worker)

    def told(_: WorkClock) -> float:
        slow = os.environ["RANK"] == str(victim) and at[0] >= step
        return 0.2 * times if slow else 0.2

    Worker.set_learning_rate = noted  # type: ignore[method-assign]
    WorkClock.take = told  # type: ignore[method-assign]
    loop.train(job)


def spoil(job: dict[str, Any], victim: int, steps: list[int], how: str) -> None:
    """Train; in some steps one rank's loss or gradient is "nan", "inf", or far too large.

    Notes a hash of the weights before each spoilt step and after it.
    """
    count = Worker.count
    note = Path(job["scratch"]) / f"weights-{os.environ['RANK']}.jsonl"
    note.parent.mkdir(parents=True, exist_ok=True)
    hit = set(steps)
    began: dict[int, str] = {}

    def odd(worker: Worker, loss: torch.Tensor) -> torch.Tensor:
        if worker.step in hit:
            began.setdefault(worker.step, weights_hash(worker))
        if worker.rank != victim or worker.step not in hit:
            return loss
        if how == "gradient":  # the loss is as ever, its gradient is not
            return loss + 1e4 * (loss - loss.detach())
        return loss * {"nan": float("nan"), "inf": float("inf"), "loss": 40.0}[how]

    def noted(worker: Worker, seen: Any, norm: float, taken: bool) -> None:
        count(worker, seen, norm, taken)
        if worker.step in hit:
            line = {"step": worker.step, "taken": taken, "before": began.pop(worker.step),
                    "after": weights_hash(worker)}  # fmt: skip
            with note.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if not taken and worker.guard.must_go_back:
                hit.clear()  # other data follows, which is sound

    in_forward(odd)
    Worker.count = noted  # type: ignore[method-assign]
    loop.train(job)


def weights_hash(worker: Worker) -> str:
    """The model's weights, to the bit."""
    digest = hashlib.sha256()
    for parameter in worker.engine.module.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def until(job: dict[str, Any], step: int) -> None:
    """Train to a checkpoint of that step and leave the process there, orderly, as if resized."""
    save = Worker.save

    class Enough(Exception):
        pass

    def saved(worker: Worker) -> None:
        save(worker)
        if worker.step == step:
            worker.finish()
            raise Enough

    Worker.save = saved  # type: ignore[method-assign]
    try:
        train(job)
    except Enough:
        torch.distributed.barrier()
