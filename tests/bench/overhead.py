"""Tokens per second of the pretraining stage on Ray and DeepSpeed against bare PyTorch.

One worker against one process; two workers against torchrun with DDP, both with whole optimizer
states on every rank (ZeRO 0). The model and batch of recipe `tiny`, random tokens. Every round
launches both sides anew, each alone on the machine (Ray is stopped while the other runs), with the
same settings of malloc; the launch is not counted, nor the first steps. Ours counts what a step of
the stage really does: reading, guards, metrics, log.

`python -m tests.bench.overhead [ROUNDS [STEPS [WORKERS]]]`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cluster.session import KEEPING_MEMORY
from model.config import ModelConfig
from stages.pretrain import Config
from stages.text.token_shards import TokenWriter
from tests.bench.harness import compare

ROUNDS, STEPS, FIRST = 3, 60, 8
SHAPE = ModelConfig(vocab_size=3072)


def job(folder: Path, workers: int, steps: int) -> dict[str, Any]:
    """What the stage's loop is given."""
    config = Config.model_validate(
        {"tokens": "t", "steps": steps, "warmup_steps": 2, "batch_tokens": 4096,
         "sequence_length": 256, "heldout_tokens": 256,
         "parallel": {"workers": workers, "rows": 16 // workers}}
    )  # fmt: skip
    return {
        "config": config.model_dump(mode="json"), "shape": SHAPE.model_dump(), "seed": 1,
        "tokens": str(folder / "tokens" / "train"), "heldout": str(folder / "tokens" / "heldout"),
    }  # fmt: skip


def write_tokens(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for split, documents in (("train", 2000), ("heldout", 20)):
        writer = TokenWriter(folder / "tokens" / split, SHAPE.vocab_size, end_of_text=0)
        for i in range(documents):
            writer.add(str(i), draw.integers(4, SHAPE.vocab_size, 200).tolist())
        writer.close()


def ours(folder: Path, made: dict[str, Any], workers: int) -> list[float]:
    """Times at the end of each step, as the stage's TensorBoard events have them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from cluster import session
    from cluster.trainer import run_workers
    from stages.pretrain.loop import train
    from stages.tune.journal import TENSORBOARD

    scratch = Path(tempfile.mkdtemp(dir=folder))
    session.connect()
    try:
        run_workers(
            train, made | {"scratch": str(scratch)}, workers=workers, scratch=scratch,
            name="overhead", threads=1,
        )  # fmt: skip
    finally:
        session.disconnect()
    events = EventAccumulator(str(scratch / TENSORBOARD), size_guidance={"scalars": 0})
    events.Reload()
    return [event.wall_time for event in events.Scalars("train/loss")]


def peer(folder: Path, made: dict[str, Any], workers: int) -> list[float]:
    """The same of bare PyTorch."""
    (folder / "job.json").write_text(json.dumps(made))
    arguments = ["tests.bench.plain_training", str(folder / "job.json"), str(folder / "times.json")]
    launch = [sys.executable, "-m"]
    if workers > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={workers}", "-m"]
    subprocess.run([*launch, *arguments], check=True, env=os.environ | KEEPING_MEMORY)
    return list(json.loads((folder / "times.json").read_text()))


def rate(times: list[float], steps: int) -> float:
    """Tokens per second from step FIRST until the decay begins, where the stage saves."""
    end = round(0.7 * steps) - 1
    return 4096 * (end - FIRST) / (times[end] - times[FIRST])


def main(rounds: int = ROUNDS, steps: int = STEPS, *workers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokens(folder)
        for count in workers or (1, 2):
            made = job(folder, count, steps)

            def one(side: Any, made: dict[str, Any] = made, workers: int = count) -> float:
                return rate(side(folder, made, workers), steps)

            compare(
                f"overhead, {count} worker" + "s" * (count > 1),
                lambda one=one: one(ours),
                lambda one=one: one(peer),
                "tokens/s",
                rounds=rounds,
                rate=lambda work: work(),
                warm_up=False,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
