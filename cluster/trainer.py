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
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster.errors import UserError, disk_is_full

Loop = Callable[[dict[str, Any]], None]
Progress = Callable[[float, float, str], None]

RESTARTS = 3
"""How many times in a row a group is started again that got no further than the one before."""
RESTARTS_IN_ALL = 1000
RESIZE_S = 30.0
"""How often an elastic group asks whether the cluster has room for more workers."""

POLL_S = 0.5
BOARD = "RAYLM_BOARD"
"""Environment variable of a worker: the folder where it leaves notes for the driver."""
_RETRYABLE = (RuntimeError, OSError)
"""What a lost peer or a network raises; anything else, or a full disk, would only fail again."""


class WorkerError(RuntimeError):
    """A worker's own exception: its type, sentence and traceback, without the layers around it."""


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
    board = _Board(scratch / f"{name}.launch")
    board.clear()
    launch = {
        "config": config, "board": str(board.folder), "threads": threads, "gpu": gpu,
        "restarts": restarts,
    }  # fmt: skip
    with _watched(board, progress):
        failure = _fit(_Worker(loop), launch, workers, scratch, name, gpu, restarts, resize_s)
    board.raise_error()
    if failure is not None:
        cause = board.last_words() or failure
        raise WorkerError(f"{name}: the workers failed {restarts + 1} times: {cause}")
    return board.report() or {}


def report(metrics: dict[str, Any], done: float = 0.0, total: float = 0.0, text: str = "") -> None:
    """From inside a loop: publish metrics and progress. Only rank 0's are kept."""
    if os.environ.get("RANK", "0") == "0" and (folder := os.environ.get(BOARD)):
        _Board(Path(folder)).write(
            "report.json", {"metrics": metrics, "done": done, "total": total, "text": text}
        )


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
    _tune_launch()
    import ray
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    if not ray.is_initialized():
        from cluster import session

        session.connect()
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
            failure_config=FailureConfig(
                max_failures=RESTARTS_IN_ALL if restarts else 0, controller_failure_limit=restarts
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return str(error)
    return None


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

    return Trainer


def _tune_launch() -> None:
    """Ray Train's switches that make a launch on one machine seconds faster; the user's own win."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")


class _Worker:
    """What Ray Train calls on every rank: threads, process group, the loop, errors to the board."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __call__(self, launch: dict[str, Any]) -> None:
        board = _Board(Path(launch["board"]))
        if board.has_error():  # an earlier group met an error that would only come again
            return
        os.environ[BOARD] = launch["board"]
        try:
            with _process_group(launch["threads"], launch["gpu"]):
                if os.environ["RANK"] == "0":
                    board.count_start(launch["restarts"])
                self.loop(launch["config"])
        except Exception as error:
            retryable = isinstance(error, _RETRYABLE) and not isinstance(error, WorkerError)
            if retryable and not disk_is_full(error):
                board.note_failure(error)
                raise
            with contextlib.suppress(OSError):  # a full disk may hold no note of it either
                board.write_error(error)
            if not board.has_error() or os.environ.get("WORLD_SIZE") != "1":
                raise  # so that no other rank waits for this one


@contextlib.contextmanager
def _process_group(threads: int, gpu: bool) -> Iterator[None]:
    """Environment, threads and torch.distributed for this rank, as torchrun would set them.

    Done here and not by Ray's TorchTrainer, whose backend makes driver and controller import torch
    before the first worker starts.
    """
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
    import torch

    torch.set_num_threads(threads)
    if gpu:
        torch.cuda.set_device(0)  # Ray shows each worker only its own device
    torch.distributed.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _free_address() -> tuple[str, int]:
    """This node's address and a port nobody listens on."""
    import socket

    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), int(probe.getsockname()[1])


class _Board:
    """A folder where rank 0 leaves its last report, and any rank the error that ended the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            file.unlink()

    def write(self, name: str, value: dict[str, Any]) -> None:
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        partial.write_text(json.dumps(value), encoding="utf-8")
        partial.replace(self.folder / name)

    def write_error(self, error: Exception) -> None:
        kind = "user" if isinstance(error, UserError) else type(error).__name__
        trace = "".join(traceback.format_exception(error))
        self.write("error.json", {"kind": kind, "message": str(error), "trace": trace})

    def note_failure(self, error: Exception) -> None:
        """Keep an exception that is worth another try, for the case that it keeps coming."""
        with contextlib.suppress(OSError):
            text = "".join(traceback.format_exception(error))
            self.write("failure.json", {"time": time.time(), "text": text})

    def last_words(self) -> str | None:
        """What is known of the last group's death: where it hung, or what it raised."""
        hang = self.folder / "hang.txt"
        if hang.exists():
            return hang.read_text(encoding="utf-8")
        failure = self._read("failure.json")
        return failure["text"] if failure else None

    def count_start(self, restarts: int) -> None:
        """Give up where so many groups in a row got no further than the one before.

        Raises WorkerError.
        """
        report = self._read() or {"done": 0.0, "total": 0.0}
        before = self._read("starts.json") or {"done": -1.0, "fruitless": -1}
        cause = self.last_words() or "they were killed, by the system or for want of memory"
        if (hang := self.folder / "hang.txt").exists():
            hang.rename(self.folder / f"hang-{time.time_ns()}.txt")
        (self.folder / "failure.json").unlink(missing_ok=True)
        further = report["done"] > before["done"]
        fruitless = 0 if further else before["fruitless"] + 1
        self.write("starts.json", {"done": report["done"], "fruitless": fruitless})
        if fruitless > restarts:
            raise WorkerError(
                f"the workers failed {fruitless} times without getting further than "
                f"{report['done']:g} of {report['total']:g}; the last time: {cause}"
            )

    def has_error(self) -> bool:
        return (self.folder / "error.json").exists()

    def raise_error(self) -> None:
        if not self.has_error():
            return
        error = json.loads((self.folder / "error.json").read_text(encoding="utf-8"))
        if error["kind"] == "user":
            raise UserError(error["message"])
        raise WorkerError(f"{error['kind']}: {error['message']}\n{error['trace']}")

    def _read(self, name: str = "report.json") -> dict[str, Any] | None:
        try:
            return dict(json.loads((self.folder / name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def report(self) -> dict[str, Any] | None:
        value = self._read()
        return value["metrics"] if value else None

    def progress(self) -> tuple[float, float, str] | None:
        value = self._read()
        return (value["done"], value["total"], value["text"]) if value else None


@contextlib.contextmanager
def _watched(board: _Board, progress: Progress | None) -> Iterator[None]:
    """While inside, hand rank 0's progress to `progress` as it changes."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def poll() -> None:
        seen, stopped = None, False
        while not stopped:
            stopped = stop.wait(POLL_S)  # and read once more: the last report is news too
            if (now := board.progress()) is not None and now != seen:
                seen = now
                progress(*now)

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
