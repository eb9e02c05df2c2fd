"""Ranks without Ray: processes forked from one that has imported torch and DeepSpeed once.

DeepSpeed remembers its groups for the life of a process, so every run gets fresh ones.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOAD = ["deepspeed", "torch.utils.tensorboard", "stages.pretrain.loop", "tests.dist.ranks"]
DEADLINE_S = 300


def run_ranks(loop: Callable[[dict[str, Any]], None], job: dict[str, Any], world: int) -> Any:
    """Run `loop(job)` on `world` ranks of a gloo group; what rank 0 reported last.

    Raises AssertionError with the traceback of the first rank that failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            context.Process(target=_rank, args=(loop, job, rank, world, folder), daemon=True)
            for rank in range(world)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(DEADLINE_S)
        late = [process.pid for process in ranks if process.is_alive()]
        for process in ranks:
            process.kill()
        errors = [path.read_text() for path in sorted(folder.glob("error-*"))]
        assert not errors, errors[0]
        assert not late, f"ranks {late} of {world} had not ended after {DEADLINE_S} s"
        report = folder / "report.json"
        return json.loads(report.read_text())["metrics"] if report.exists() else None


def _rank(
    loop: Callable[[dict[str, Any]], None], job: dict[str, Any], rank: int, world: int, folder: Path
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT="29519", RAYLM_BOARD=str(folder),
    )  # fmt: skip
    try:
        store = dist.FileStore(str(folder / "store"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        loop(job)
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)  # without waiting for ranks that wait for this one
    os._exit(0)
