"""Run a training loop on a group of workers: launch, process group, failures, elasticity, progress.

The only importer of `ray.train`. A loop is a module-level function of one dictionary; each worker
calls it once with the same dictionary, inside an initialised torch process group (gloo on CPUs,
nccl on GPUs). What survives a dead worker is what the loop itself committed to its scratch folder:
after a failure Ray Train starts a new group, of another size when elastic, and the loop resumes
from there.

`scratch` must be seen by driver and workers alike: a local folder on one machine, a shared file
system on a cluster.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import session
from cluster.board import BOARD, Board, Progress, WorkerError, watched
from cluster.errors import UserError, device_memory_is_full, disk_is_full

if TYPE_CHECKING:
    from ray.train.v2.api.config import FailureConfig

Loop = Callable[[dict[str, Any]], None]

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
MEET_S = 600.0
"""How long ranks wait for all of them to be there."""
COLLECTIVE_S = 7200
"""How long torch lets a rank wait in a collective for the others, and NCCL's own watchdog for a
sign of life. Far above any watch's limit (`cluster.watch`), which says who hangs where: torch would
end the process without a word of that, after 10 minutes on NCCL and 30 on gloo."""

_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Ray leaves a machine's GPUs in sight of workers that asked for none, and DeepSpeed takes them."""

_RETRYABLE = (RuntimeError, OSError)
"""What a lost peer, a network or a store out of reach raises; anything else, a full disk or a full
device would only fail again."""


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
        failure = _fit(_Worker(loop), launch, workers, scratch, name, gpu, restarts, resize_s)
    board.raise_error()
    if failure is not None:
        cause = board.last_words() or failure
        raise WorkerError(f"{name}: the workers failed {restarts + 1} times: {cause}")
    return board.report() or {}


def _fit(
    worker: _Worker,
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
    _tune_launch(elastic=not isinstance(workers, int))
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
            failure_config=_failures_allowed(not isinstance(workers, int), restarts),
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
    """Ray's trainer without actors that a launch here has no use for; each costs a process start.

    One hands out Ray datasets, which our loops never take. On one machine the one that frees a dead
    controller's resources goes too: it asks the dashboard, which a laptop's session does not have.
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    unused: tuple[type, ...] = (DatasetsCallback,)
    if single_node:
        unused = (*unused, PlacementGroupCleanerCallback)

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [c for c in callbacks if not isinstance(c, unused)]

        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C stays the command's: Ray's handler ends the process silently, with 0."""

    return Trainer


def _tune_launch(elastic: bool) -> None:
    """Ray Train's switches that make a launch on one machine seconds faster, and how long a group
    waits for its places; the user's own win.
    """
    if os.environ.get(START_TIMEOUT) in (str(ELASTIC_START_S), str(NODES_START_S)):
        del os.environ[START_TIMEOUT]  # of a launch before this one
    if elastic or not session.started_here():
        os.environ.setdefault(START_TIMEOUT, str(ELASTIC_START_S if elastic else NODES_START_S))
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")


class _Worker:
    """What Ray Train calls on every rank: threads, process group, the loop, errors to the board."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __call__(self, launch: dict[str, Any]) -> None:
        board = Board(Path(launch["board"]))
        if board.has_error():  # an earlier group met an error that would only come again
            return
        os.environ[BOARD] = launch["board"]
        try:
            _take_place(launch["threads"], launch["gpu"])
            if os.environ["RANK"] == "0":
                board.count_start(launch["restarts"], int(os.environ["WORLD_SIZE"]))
            with _process_group(launch["gpu"]):
                self.loop(launch["config"])
        except Exception as error:
            told: Exception = error
            if device_memory_is_full(error) and not board.took_over():
                told = _no_memory(error)
            retryable = isinstance(told, _RETRYABLE) and not isinstance(told, WorkerError)
            if retryable and not disk_is_full(error):
                board.note_failure(error)
                raise
            with contextlib.suppress(OSError):  # a full disk may hold no note of it either
                board.write_error(told)
            if not board.has_error() or os.environ.get("WORLD_SIZE") != "1":
                raise  # so that no other rank waits for this one


def _no_memory(error: Exception) -> UserError:
    """A device without room would be without it again: the user's to mend, not worth a restart.

    Not so where a group took over from one that died: the driver may not yet have freed what the
    dead held.
    """
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    said = str(error).strip().splitlines()[0]
    return UserError(
        f"rank {rank} of {size} found no memory for its next tensor: {said} `raylm plan` says what "
        "each worker holds, and what would fit; what was committed is kept, and the same command "
        "goes on from there."
    )


def _take_place(threads: int, gpu: bool) -> None:
    """This rank's environment, as torchrun would set it."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    address = broadcast_from_rank_zero(_free_address() if rank == 0 else None)
    os.environ.update(
        MASTER_ADDR=address[0], MASTER_PORT=str(address[1]), RANK=str(rank), WORLD_SIZE=str(size),
        # DeepSpeed takes it for the device's number, and Ray shows a worker one device.
        LOCAL_RANK=str(0 if gpu else context.get_local_rank()),
        NODE_RANK=str(context.get_node_rank()),
        LOCAL_WORLD_SIZE=str(context.get_local_world_size()), OMP_NUM_THREADS=str(threads),
    )  # fmt: skip
    os.environ.setdefault("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", str(COLLECTIVE_S))


@contextlib.contextmanager
def _process_group(gpu: bool) -> Iterator[None]:
    """Threads and torch.distributed for this rank.

    Done here and not by Ray's TorchTrainer, whose backend makes driver and controller import torch
    before the first worker starts.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if gpu:
        torch.cuda.set_device(0)  # Ray shows each worker only its own device
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=COLLECTIVE_S)
    # groups made later (DeepSpeed's, a mesh's) take these, not the timeout of the first one
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = limit
    store = dist.TCPStore(host, port, size, rank == 0, timeout=timedelta(seconds=MEET_S))
    store.set_timeout(limit)
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    yield
    # not after an error: with peers in a collective, NCCL would wait for them and hide the cause
    dist.destroy_process_group()


def _free_address() -> tuple[str, int]:
    """This node's address and a port nobody listens on."""
    import socket

    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), int(probe.getsockname()[1])
