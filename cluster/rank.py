"""One rank of a training: its place among the others, its process group, where its errors go.

Runs inside a worker of Ray Train's, which `cluster.trainer` launches.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from cluster.board import BOARD, Board, WorkerError
from cluster.errors import UserError, device_memory_is_full, disk_is_full
from cluster.session import cores

Loop = Callable[[dict[str, Any]], None]

MEET_S = 600.0
"""How long ranks wait for all of them to be there."""
COLLECTIVE_S = 7200
"""How long torch lets a rank wait in a collective for the others, and NCCL's own watchdog for a
sign of life. Far above any watch's limit (`cluster.watch`), which says who hangs where: torch would
end the process without a word of that, after 10 minutes on NCCL and 30 on gloo."""
COMPILERS = 32
"""The most compiler processes of a rank, as torch has it; the ranks of a node share its cores."""

_RETRYABLE = (RuntimeError, OSError)
"""What a lost peer, a network or a store out of reach raises; anything else, a full disk or a full
device would only fail again."""


class Leaving(RuntimeError):
    """The group has committed what it has and ends, to start again at another place or size."""


def told_to_leave() -> bool:
    """From inside a loop: whether this rank's node is about to be taken away, or its group resized.

    Ray drains a node whose pod is told to end (a reclaimed spot machine's, an evicted one), or that
    its autoscaler gives back, and Ray Train tells the workers; `cluster.resizing` tells them alike.
    Ray's public `get_preemption_info` is a barrier through an actor, too dear for every step: this
    reads the rank's own note.
    """
    name = "ray.train.v2._internal.execution.context"
    try:
        context = sys.modules[name].get_train_context()
    except (KeyError, RuntimeError):  # no worker of Ray Train's
        return False
    notice = context.preemption_context.preemption_info
    return notice is not None and context.get_world_rank() in notice.preempted_ranks


class Rank:
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
    here = context.get_local_world_size()
    address = broadcast_from_rank_zero(_free_address() if rank == 0 else None)
    os.environ.update(
        MASTER_ADDR=address[0], MASTER_PORT=str(address[1]), RANK=str(rank), WORLD_SIZE=str(size),
        # DeepSpeed takes it for the device's number, and Ray shows a worker one device.
        LOCAL_RANK=str(0 if gpu else context.get_local_rank()),
        NODE_RANK=str(context.get_node_rank()),
        LOCAL_WORLD_SIZE=str(here), OMP_NUM_THREADS=str(threads),
    )  # fmt: skip
    # torch.compile would start up to 32 compilers for each rank of a node: hundreds, with 8 GPUs
    compilers = max(1, min(COMPILERS, cores() // here))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(compilers))
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
