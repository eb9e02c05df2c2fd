"""What offloading asks of the host: its memory, its link to the device, and its processor's time.

As DeepSpeed 0.19 does it (`runtime/zero/stage_1_and_2.py`, `stage3.py`), in numbers of this rank's
share, four bytes each. ZeRO-Offload (arXiv:2101.06840) explains why; it counts two-byte gradients.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import prod

from stages.planning.communication import fetched_numbers
from stages.planning.run_shape import RunShape
from stages.planning.weights import (
    checkpoint_bytes,
    largest_weight,
    matrices,
    optimizer_bytes,
)

PROCESS = 4 * 2**30
"""Python, its libraries and CUDA's part of one worker's process; an assumption."""
UPDATE_PASSES = 7 + 2 + 2
"""Times that each number passes through the host's memory in an update: AdamW reads four and writes
three, clipping scales the gradient, and the new weight is copied to where the device fetches it."""


@dataclass(frozen=True)
class HostMemory:
    """Bytes of the host's memory that one worker takes."""

    weights: float
    gradients: float
    optimizer: float
    copies: float
    """On their way between host and device."""
    checkpoint: float
    """A copy of what this rank saves, while it is written."""
    process: float

    @property
    def total(self) -> float:
        return sum(astuple(self))


@dataclass(frozen=True)
class HostTraffic:
    """What one worker moves in one step, in bytes."""

    gradients: float
    """Over the link, both ways: one stream makes these copies, one after another."""
    fetched: float
    """Weights over the link, for every pass that needs them."""
    updated: float
    """New weights over the link, after the update."""
    update: float
    """Through the host's memory."""


def host_memory(run: RunShape) -> HostMemory:
    """The host's memory that one worker of `run` takes."""
    parallel = run.config.parallel
    share = 4.0 * run.held / run.replicas
    groups = [4.0 * part / run.replicas for part in (run.matrices, run.tables)]  # AdamW's two
    flat = sum(pinned(run, part) for part in groups)
    weights = flat if parallel.offload_weights else 0.0
    gradients = optimizer = copies = 0.0
    if parallel.offload_optimizer:
        optimizer = share * optimizer_bytes(run) / 4.0
        if parallel.zero == 3:
            optimizer += share
            gradients = flat + pinned(run, share)  # to step with, and to add up in
        else:
            optimizer += flat
            gradients = flat + added_up(run)
            copies = flat + pinned(run, 4.0 * largest_weight(run))
    return HostMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        copies=copies,
        checkpoint=checkpoint_bytes(run) / run.workers,
        process=PROCESS,
    )


def pinned(run: RunShape, size: float) -> float:
    """What a pinned array of `size` bytes takes: PyTorch's CachingHostAllocator rounds it up to a
    power of two. On a processor nothing is pinned.
    """
    return 2.0 ** (int(size) - 1).bit_length() if run.config.parallel.gpu and size > 1 else size


def added_up(run: RunShape) -> float:
    """Gradients of the micro-batches so far at ZeRO 2: an array for each weight of which the rank
    updates anything.
    """
    if run.config.parallel.zero != 2 or run.accumulation == 1:
        return 0.0
    tensor, table = run.config.parallel.tensor, run.model.vocab_size * run.model.hidden_size
    sizes = [prod(size) / tensor for size in matrices(run)] + [table] * (run.tables // table)
    return sum(pinned(run, 4.0 * size) for size in sizes) / run.replicas


def host_traffic(run: RunShape) -> HostTraffic:
    """What one worker of `run` moves between device and host in one step.

    A gradient goes to the host once it is reduced: at ZeRO 1 at the end of a step, at ZeRO 2 and 3
    after every micro-batch. Where it is added up over several, it comes back to be added to and
    goes again, and the last sum goes a second time, to where the update reads it; ZeRO 3 does so
    for one micro-batch too.
    """
    parallel, passes = run.config.parallel, run.accumulation
    share = 4.0 * run.held / run.replicas
    crossings = {0: 0, 1: 1, 2: 2 * passes if passes > 1 else 1, 3: 2 * passes + 1}[parallel.zero]
    away, weights = parallel.offload_optimizer is not None, parallel.offload_weights is not None
    return HostTraffic(
        gradients=share * crossings if away else 0.0,
        fetched=4.0 * fetched_numbers(run) / run.replicas if weights else 0.0,
        updated=share if away != weights else 0.0,
        update=share * UPDATE_PASSES if away else 0.0,
    )
