"""Run a training loop on a group of workers: launch, process group, failures, elasticity, progress.

With `cluster.rank` and `cluster.resizing`, the only importer of `ray.train`. A loop is a
module-level function of one dictionary; each worker calls it once with the same dictionary, inside
an initialised torch process group (gloo on CPUs, nccl on GPUs). What survives a dead worker is what
the loop itself committed to its scratch folder: after a failure Ray Train starts a new group, of
another size when elastic, and the loop resumes from there. A loop that is `rank.told_to_leave`
commits what it has and raises `rank.Leaving`: then a resize or a drained node costs it nothing.

`scratch` must be seen by driver and workers alike: a local folder on one machine, a shared file
system on a cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import session
from cluster.board import Board, Progress, WorkerError, watched
from cluster.rank import Loop, Rank

if TYPE_CHECKING:
    from ray.train.v2.api.config import FailureConfig

RESTARTS = 3
"""How many times in a row a group is started again that got no further than the one before."""
RESTARTS_IN_ALL = 1000
RESIZE_S = 30.0
"""How often an elastic group asks whether the cluster has room for more workers."""
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
ELASTIC_START_S = 10.0
"""How long an elastic group waits for its places before it counts again what the cluster has: just
after a node's death it may have counted the dead one."""
NODES_START_S = 1800.0
"""How long a group of fixed size waits on a cluster that may have to start nodes for it."""
NOTICE_S = 2.0
"""How often a group on a cluster asks whether one of its nodes is about to be taken away."""

_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Ray leaves a machine's GPUs in sight of workers that asked for none, and DeepSpeed takes them."""


def run_workers(
    loop: Loop,
    config: dict[str, Any],
    *,
    workers: int | tuple[int, int],
    scratch: Path,
    name: str,
    threads: int,
    gpu: bool = False,
    restarts: int = RESTARTS,
    resize_s: float = RESIZE_S,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run `loop(config)` on `workers` ranks and return what rank 0 reported last.

    `workers` may be (minimum, maximum): the group takes what the cluster has, goes on with fewer
    when some die, and takes in new ones, looking every `resize_s`. `threads` is torch's intra-op
    threads in each worker. `progress` is called with (done, total, text) as rank 0 calls `report`.

    Raises UserError as raised in a worker; WorkerError for any other exception of the loop, and for
    a group that died more than `restarts` times in a row without getting further, with the last
    death's cause: an exception's, or where every rank hung (`cluster.watch`).
    """
    scratch = scratch.resolve()
    board = Board(scratch / f"{name}.launch")
    board.clear()
    launch = {
        "config": config, "board": str(board.folder), "threads": threads, "gpu": gpu,
        "restarts": restarts,
    }  # fmt: skip
    with watched(board, progress):
        failure = _fit(Rank(loop), launch, workers, scratch, name, gpu, restarts, resize_s)
    board.raise_error()
    if failure is not None:
        cause = board.last_words() or failure
        raise WorkerError(f"{name}: the workers failed {restarts + 1} times: {cause}")
    return board.report() or {}


def _fit(
    worker: Rank,
    launch: dict[str, Any],
    workers: int | tuple[int, int],
    scratch: Path,
    name: str,
    gpu: bool,
    restarts: int,
    resize_s: float,
) -> str | None:
    """Launch through Ray Train; the last failure's text when the group gave up, else None."""
    import ray

    if not ray.is_initialized():
        session.connect()
    elastic = not isinstance(workers, int)
    _tune_launch(elastic)
    from ray.train.v2.api.config import RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    resources = {"CPU": 1, "GPU": 1} if gpu else {"CPU": 1}
    trainer = _trainer_class(single_node=len(ray.nodes()) == 1)(
        worker,
        train_loop_config=launch,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=resize_s,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(scratch / "ray"),
            worker_runtime_env={"env_vars": session.KEEPING_MEMORY | ({} if gpu else _NO_GPU)},
            failure_config=_failures_allowed(elastic, restarts),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return str(error)
    return None


def _failures_allowed(elastic: bool, restarts: int) -> FailureConfig:
    """What Ray counts over a run's whole life, and never forgets; `board` counts those in a row.

    For an elastic group that includes each time it counted a dead node's places, which is nothing
    unusual in weeks. A group of fixed size has waited long by then, and is told that it waits in
    vain.
    """
    from ray.train.v2.api.config import FailureConfig

    in_all = RESTARTS_IN_ALL if restarts else 0
    return FailureConfig(
        max_failures=in_all, controller_failure_limit=in_all if elastic else restarts
    )


def _trainer_class(single_node: bool) -> Any:
    """Ray's trainer, whose groups are asked to commit before they are resized, without actors that
    a launch here has no use for; each costs a process start.

    One hands out Ray datasets, which our loops never take. On one machine the one that frees a dead
    controller's resources goes too: it asks the dashboard, which a laptop's session does not have.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from cluster.resizing import CommitFirst

    unused: tuple[type, ...] = (DatasetsCallback,)
    if single_node:
        unused = (*unused, PlacementGroupCleanerCallback)

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [*(c for c in callbacks if not isinstance(c, unused)), CommitFirst()]

        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C stays the command's: Ray's handler ends the process silently, with 0."""

    return Trainer


def _tune_launch(elastic: bool) -> None:
    """Ray Train's switches: how long a group waits for its places, and how soon it hears that it
    will lose a node; the user's own win. What makes a launch on one machine seconds faster is in
    `session`.
    """
    if os.environ.get(START_TIMEOUT) in (str(ELASTIC_START_S), str(NODES_START_S)):
        del os.environ[START_TIMEOUT]  # of a launch before this one
    if elastic or not session.started_here():
        os.environ.setdefault(START_TIMEOUT, str(ELASTIC_START_S if elastic else NODES_START_S))
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", str(NOTICE_S))
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
