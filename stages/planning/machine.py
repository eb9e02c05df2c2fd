"""How fast a machine really is: from a datasheet and the shares that training reaches, or measured.

A measured machine is this one: a product, an attention and a pass over memory of the run's own
sizes are timed, each the median of several, on one process with the run's threads.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from model.flops import peak_flops
from stages.hardware import Hardware
from stages.planning.run_shape import RunShape
from stages.planning.work import ATTENTION_BACKWARD

ROUNDS = 5
LARGEST = 4096
"""Sizes above this are measured at it: a plan must not need the memory that the run needs."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Machine:
    """What one worker's device reaches: FLOP/s, bytes/s, bytes, seconds."""

    name: str
    products: float
    """FLOP/s of matrix products."""
    attention: float
    """FLOP/s of the attention kernel."""
    bandwidth: float
    """Bytes/s read and written by passes over activations."""
    streaming: float
    """Bytes/s of passes over arrays larger than any cache: weights, gradients, moments."""
    memory: float
    """Bytes."""
    link: float
    """Bytes/s to other workers of the node."""
    network: float
    """Bytes/s to other nodes."""
    per_node: int
    kernel_s: float
    """What starting an operation costs."""
    peak: float
    """FLOP/s that model FLOPs utilisation is measured against."""
    host_memory: float = math.inf
    """Bytes of its node's memory that one worker may take; a processor's is its own."""
    host_link: float = math.inf
    """Bytes/s between device and host, one direction."""
    host_bandwidth: float = math.inf
    """Bytes/s that a worker's threads read and write of the host's memory."""


def planned_machine(hardware: Hardware, run: RunShape) -> Machine:
    """A device from its datasheet; a ValueError where it cannot compute what the run asks for."""
    sheet = hardware.datasheet
    if run.config.precision == "float8" and peak_flops(sheet.name, "float8") is None:
        raise ValueError(
            f"precision is float8 and hardware.device {hardware.device}, which does not multiply "
            "8-bit floats (compute capability 8.9 or newer does: Ada, Hopper, Blackwell): use "
            "bfloat16, or hardware.device h100 or h200"
        )
    peak = sheet.flops(run.precision)
    bandwidth = sheet.bandwidth * hardware.bandwidth_share
    sharing = min(hardware.per_node, run.workers)  # a node's memory and its bandwidth
    return Machine(
        name=sheet.name,
        products=peak * hardware.matmul_share,
        attention=peak * hardware.attention_share,
        bandwidth=bandwidth,
        streaming=bandwidth,
        memory=sheet.memory,
        link=sheet.link * hardware.network_share,
        network=hardware.network_gbit * 1e9 / 8 * hardware.network_share,
        per_node=hardware.per_node,
        kernel_s=4e-6,  # a CUDA launch
        peak=peak,
        host_memory=hardware.host_memory_gb * 1e9 * hardware.host_memory_share / sharing,
        host_link=sheet.host_link * hardware.host_link_share,
        host_bandwidth=min(
            sheet.host_bandwidth * hardware.host_bandwidth_share / sharing,
            run.config.parallel.threads * hardware.core_gbyte_s * 1e9,
        ),
    )


def measured_machine(run: RunShape, clock: Clock = time.perf_counter) -> Machine:
    """This machine's processor, timed for about a second at the sizes of `run`."""
    import os

    import psutil
    import torch

    from model.attention import attend as attention

    model, threads = run.model, torch.get_num_threads()
    torch.set_num_threads(run.config.parallel.threads)
    try:
        kind = torch.bfloat16 if run.precision == "bfloat16" else torch.float32
        tokens = min(2048, int(run.tokens))
        width, inner = min(model.hidden_size, LARGEST), min(model.intermediate_size, LARGEST)
        x, wide = torch.randn(tokens, width, dtype=kind), torch.randn(tokens, inner, dtype=kind)
        weight = torch.randn(inner, width, dtype=kind)
        flops = 2.0 * x.numel() * len(weight)
        length, heads = min(run.config.sequence_length, LARGEST), min(model.num_attention_heads, 64)
        shape = (max(1, tokens // length), heads, length, min(model.head_dim, 256))
        query, keys = (torch.randn(shape, dtype=kind, requires_grad=True) for _ in range(2))
        mask = torch.ones(length, length, dtype=torch.bool).tril_()[None, None]
        numbers = wide.float()
        scores = 4.0 * query.numel() * length * (1 + ATTENTION_BACKWARD)
        array = torch.randn(1 << 24)

        def attend() -> None:
            attention(query, keys, keys, mask).sum().backward()

        def multiply() -> None:  # forward, and both products of backward
            x @ weight.T, wide @ weight, wide.T @ x

        products = 3 * flops / usual_seconds(multiply, clock)
        result = Machine(
            name="this processor",
            products=products,
            attention=scores / usual_seconds(attend, clock),
            bandwidth=12.0 * numbers.numel() / usual_seconds(lambda: numbers * numbers, clock),
            streaming=12.0 * array.numel() / usual_seconds(lambda: array.add_(array), clock),
            memory=float(psutil.virtual_memory().total) / max(1, run.workers),
            link=5e9,
            network=1e9,
            per_node=os.cpu_count() or 1,
            kernel_s=4e-6,
            peak=products,
        )
    finally:
        torch.set_num_threads(threads)
    return result


def usual_seconds(work: Callable[[], object], clock: Clock, rounds: int = ROUNDS) -> float:
    """The median of several timed calls, after one to warm up: a step is too long to find only the
    moments when nobody else is at work.
    """
    work()
    times = []
    for _ in range(rounds):
        begun = clock()
        work()
        times.append(clock() - begun)
    return statistics.median(times)
