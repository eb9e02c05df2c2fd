"""Several ranks as plain processes: gloo's, forked from one that has imported everything, or NCCL's
with a GPU each, begun anew (whoever was forked from a process that looked for GPUs can use none).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.pretrain import Config
from stages.text.token_shards import TokenWriter

SHAPE = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
PRELOAD = [
    "deepspeed", "torch._dynamo", "deepspeed.runtime.zero.muon.muon_optimizer",
    "stages.pretrain.loop", "torch.utils.tensorboard", "tests.dist.faults",
    "tests.stages.tune.saving", "s3fs",
]  # fmt: skip
"""What any test's processes need: there is one server to fork from, the first test's."""


def write_tokens(folder: Path, seed: int = 0) -> Path:
    """A train and a held-out split of random tokens."""
    draw = np.random.default_rng(seed)
    for split in ("train", "heldout"):
        writer = TokenWriter(folder / split, vocabulary_size=60, end_of_text=0)
        for i in range(60):
            writer.add(str(i), draw.integers(4, 60, draw.integers(5, 60)).tolist())
        writer.close()
    return folder


def write_source(folder: Path) -> Path:
    """A train and a held-out split of Python's own source, one token a byte."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    for split, part in (("train", files[:-10]), ("heldout", files[-10:])):
        writer = TokenWriter(folder / split, vocabulary_size=256, end_of_text=0)
        for file in part:
            writer.add(file.name, list(file.read_bytes()))
        writer.close()
    return folder


def job(tokens: Path, scratch: Path, **fields: Any) -> dict[str, Any]:
    """What the pretraining loop is given; `fields` are the config's."""
    config = Config.model_validate(
        {"tokens": "t", "steps": 12, "warmup_steps": 2, "batch_tokens": 128, "sequence_length": 16,
         "learning_rate": 1e-2, "checkpoint_every": 2, "schedule": "cosine",
         "watch": {"hang_s": 200},  # a machine with many other tests is no hang
         "parallel": {"rows": 3}, **fields}
    )  # fmt: skip
    return {
        "config": config.model_dump(mode="json"), "shape": SHAPE, "seed": 5,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(scratch),
    }  # fmt: skip


def forks() -> ForkServerContext:
    """Starts processes that have imported everything already, in sight of no GPU."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(PRELOAD)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CUDA_VISIBLE_DEVICES", "")
        environment.setenv("DS_ACCELERATOR", "cpu")
        ensure_running()
    return processes


def start(
    world: int, target: Callable[..., None], *args: Any, log: Path, gpu: bool = False
) -> list[BaseProcess]:
    """Start `target(*args)` on every rank, in a process group; what they print goes to `log`."""
    processes = multiprocessing.get_context("spawn") if gpu else forks()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks: list[BaseProcess] = []
    every = ",".join(map(str, range(world)))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    for rank in range(world):
        given = (rank, world, port, log, gpu, target, args)
        ranks.append(processes.Process(target=_rank, args=given))
        with pytest.MonkeyPatch.context() as environment:
            if gpu:  # as Ray does: each sees one device, its own, from the beginning
                environment.setenv("CUDA_VISIBLE_DEVICES", visible[rank])
            ranks[-1].start()
    return ranks


def run(
    world: int,
    target: Callable[..., None],
    *args: Any,
    log: Path,
    limit_s: float = 300,
    gpu: bool = False,
) -> None:
    """Run `target(*args)` on every rank to its end; fails with what they printed."""
    ranks = start(world, target, *args, log=log, gpu=gpu)
    codes = finish(ranks, limit_s)
    assert codes == [0] * world, f"exit codes {codes}\n{log.read_text()[-6000:]}"


def finish(ranks: list[BaseProcess], limit_s: float) -> list[int | None]:
    """Exit codes of all ranks; one that does not end in time is killed."""
    for process in ranks:
        process.join(limit_s)
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    return [process.exitcode for process in ranks]


def _rank(
    rank: int,
    world: int,
    port: int,
    log: Path,
    gpu: bool,
    target: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), OMP_NUM_THREADS="1",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    if gpu:
        os.environ["LOCAL_RANK"] = "0"
    import torch

    torch.set_num_threads(1)
    try:
        backend = "nccl" if gpu else "gloo"
        torch.distributed.init_process_group(backend, rank=rank, world_size=world)
        target(*args)
        torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
