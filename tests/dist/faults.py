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
from stages.tune import passes
from stages.tune.work_clock import WorkClock


def train(job: dict[str, Any]) -> None:
    """Train, noting a hash of every row that this rank read, by step.

    DeepSpeed's Muon orthogonalises in bfloat16, which makes 1e-4 of a difference of 1e-7; here in
    float32, so that shapes can be compared.
    """
    original_muon.ns_compute_dtype = lambda _: torch.float32
    read = loop._Run.batch

    def noted(run: loop._Run) -> Any:
        batch = read(run)
        note = run.scratch / f"rows-{run.mesh.data}-{run.mesh.data_rank}.jsonl"
        rows = [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in batch.input_ids]
        with note.open("a") as file:
            file.write(json.dumps({"step": run.step, "rows": rows}) + "\n")
        return batch

    loop._Run.batch = noted  # type: ignore[method-assign]
    loop.train(job)


def die(job: dict[str, Any], victim: int, beats: int) -> None:
    """Train; one rank is killed when it has given that many signs of life."""
    seen = 0
    beat = loop._Run.beat

    def counted(run: loop._Run, doing: str) -> None:
        nonlocal seen
        seen += 1
        if run.rank == victim and seen >= beats:
            os.kill(os.getpid(), signal.SIGKILL)
        beat(run, doing)

    loop._Run.beat = counted  # type: ignore[method-assign]
    loop.train(job)


def hang(job: dict[str, Any], victim: int, step: int) -> None:
    """Train; one rank stops working before a step, for ever."""
    beat = loop._Run.beat

    def stuck(run: loop._Run, doing: str) -> None:
        beat(run, doing)
        if run.rank == victim and run.step == step:
            time.sleep(1e6)

    loop._Run.beat = stuck  # type: ignore[method-assign]
    loop.train(job)


def in_forward(change: Callable[[loop._Run, torch.Tensor], torch.Tensor]) -> None:
    """Hand the loss of every training pass to `change`, with the run it is part of."""
    forward, read = passes._PlainPasses._forward, loop._Run.batch
    running: list[loop._Run] = []

    def noted(run: loop._Run) -> Any:
        running[:] = [run]
        return read(run)

    def changed(self: Any, rows: Any, module: Any) -> torch.Tensor:
        loss = forward(self, rows, module)
        return change(running[0], loss) if torch.is_grad_enabled() else loss

    loop._Run.batch = noted  # type: ignore[method-assign]
    passes._PlainPasses._forward = changed  # type: ignore[method-assign]


def dawdle(job: dict[str, Any], victim: int, step: int, times: float) -> None:
    """Train; from a step on, one rank's work takes as many times as long, by its clock."""
    at = [0]
    set_rate = loop._Run.set_learning_rate

    def noted(run: loop._Run) -> float:
        at[0] = run.step
        return set_rate(run)

    def told(_: WorkClock) -> float:
        slow = os.environ["RANK"] == str(victim) and at[0] >= step
        return 0.2 * times if slow else 0.2

    loop._Run.set_learning_rate = noted  # type: ignore[method-assign]
    WorkClock.take = told  # type: ignore[method-assign]
    loop.train(job)


def spoil(job: dict[str, Any], victim: int, steps: list[int], how: str) -> None:
    """Train; in some steps one rank's loss or gradient is "nan", "inf", or far too large.

    Notes a hash of the weights before each spoilt step and after it.
    """
    count = loop._Run.count
    note = Path(job["scratch"]) / f"weights-{os.environ['RANK']}.jsonl"
    note.parent.mkdir(parents=True, exist_ok=True)
    hit = set(steps)
    began: dict[int, str] = {}

    def odd(run: loop._Run, loss: torch.Tensor) -> torch.Tensor:
        if run.step in hit:
            began.setdefault(run.step, weights_hash(run))
        if run.rank != victim or run.step not in hit:
            return loss
        if how == "gradient":  # the loss is as ever, its gradient is not
            return loss + 1e4 * (loss - loss.detach())
        return loss * {"nan": float("nan"), "inf": float("inf"), "loss": 40.0}[how]

    def noted(run: loop._Run, seen: Any, norm: float, taken: bool) -> None:
        count(run, seen, norm, taken)
        if run.step in hit:
            line = {"step": run.step, "taken": taken, "before": began.pop(run.step),
                    "after": weights_hash(run)}  # fmt: skip
            with note.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if not taken and run.guard.must_go_back:
                hit.clear()  # other data follows, which is sound

    in_forward(odd)
    loop._Run.count = noted  # type: ignore[method-assign]
    loop.train(job)


def weights_hash(run: loop._Run) -> str:
    """The model's weights, to the bit."""
    digest = hashlib.sha256()
    for parameter in run.engine.module.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def until(job: dict[str, Any], step: int) -> None:
    """Train to a checkpoint of that step and leave the process there, orderly, as if resized."""
    save = loop._Run.save

    class Enough(Exception):
        pass

    def saved(run: loop._Run) -> None:
        save(run)
        if run.step == step:
            run.finish()
            raise Enough

    loop._Run.save = saved  # type: ignore[method-assign]
    try:
        train(job)
    except Enough:
        torch.distributed.barrier()
