"""How long a step takes: the slower of computing and of moving, part by part.

The roofline (Williams, Waterman and Patterson, 2009) by kinds of work: products and attention at
the FLOP/s they reach, everything else at the memory's bandwidth. Gradients and weights travel
behind passes where DeepSpeed lets them (`behind`), and cost what does not fit there, and so do
offloaded ones between device and host, after them; a tensor or sequence group waits for each
exchange; a pipeline of p stages and m micro-batches idles (p - 1) / m of the time
(arXiv:2104.04473, section 2.2). Whether a group exchanges over a node's links or the network
follows from where its ranks stand (`stages.tune.mesh`).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from stages.planning.buckets import last_share
from stages.planning.communication import Communication, forward_share, step_communication
from stages.planning.host import host_traffic
from stages.planning.machine import Machine
from stages.planning.run_shape import RunShape
from stages.planning.work import Work, step_work


@dataclass(frozen=True)
class Travel:
    """Seconds of a step in which one kind of bytes travels, and of computing at the same time."""

    computing: float
    sent: float
    """Between workers."""
    crossing: float
    """Between device and host, after it on the same stream."""

    @property
    def waited(self) -> float:
        """For other workers' bytes."""
        return max(0.0, self.sent - self.computing)

    @property
    def waited_for_host(self) -> float:
        return max(0.0, self.crossing - max(0.0, self.computing - self.sent))


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on one worker, by part."""

    products: float
    attention: float
    passes: float
    update: float
    newton_schulz: float
    """Muon's products."""
    communication: float
    """Exposed: not hidden behind computing."""
    host: float
    """Exposed: offloaded numbers on their way, and their update by the host's processor."""
    idle: float
    """Waiting for the pipeline to fill and drain."""

    @property
    def total(self) -> float:
        return sum(astuple(self))


def step_time(run: RunShape, machine: Machine) -> StepTime:
    """The seconds of one step of `run` on workers of this kind."""
    work, sent = step_work(run), step_communication(run)
    products = work.product_flops / machine.products
    attention = work.attention_flops / machine.attention
    passes = work.passes_bytes / machine.bandwidth + work.kernels * machine.kernel_s
    computing = products + attention + passes
    parallel = run.config.parallel
    on_host = parallel.gpu and parallel.offload_optimizer is not None
    communication, host = exposed_seconds(run, machine, sent, computing)
    return StepTime(
        products=products,
        attention=attention,
        passes=passes,
        update=0.0 if on_host else work.update_bytes / machine.streaming,
        newton_schulz=work.newton_schulz_flops / machine.products,
        communication=communication,
        host=host,
        idle=computing * (parallel.pipeline - 1) / run.accumulation,
    )


def exposed_seconds(
    run: RunShape, machine: Machine, sent: Communication, computing: float
) -> tuple[float, float]:
    """(seconds of a step that workers wait for each other's bytes, and for the host).

    What is reduced goes to the host after it, and what is fetched from there is gathered after it,
    on the same stream: the two share the time that computing hides.
    """
    links = Links(run, machine)
    travels = behind(run, machine, sent, computing, links.replicas)
    waiting = (
        sent.tensor / links.tensor + sent.sequence / links.sequence
        + sent.pipeline / links.pipeline + sent.updates / links.replicas
    )  # fmt: skip
    moved = host_traffic(run)
    host = sum(travel.waited_for_host for travel in travels)
    host += moved.updated / machine.host_link + moved.update / machine.host_bandwidth
    return sum(travel.waited for travel in travels) + waiting, host


def behind(
    run: RunShape, machine: Machine, sent: Communication, computing: float, link: float
) -> list[Travel]:
    """What travels behind which passes, as DeepSpeed 0.19 orders it; nothing on processors, which
    have one stream.

    * ZeRO 0 reduces after the last backward pass (`buffered_allreduce_fallback`), and so does a
      pipeline after its schedule (`_exec_reduce_grads`);
    * ZeRO 1 reduces in the backward pass of a step's last micro-batch alone, ZeRO 2 in every one
      (`reduce_ready_partitions_and_remove_grads`); what is left for the last bucket comes after it;
    * both gather the new weights within `step`, while nothing computes;
    * ZeRO 3 fetches weights ahead in forward and backward passes, and reduces in the latter.
    """
    parallel, moved = run.config.parallel, host_traffic(run)
    backward = computing * backward_share(run) if parallel.gpu else 0.0
    forward = computing - backward if parallel.gpu else 0.0
    gradients, weights = sent.gradients / link, sent.weights / link
    away, fetched = moved.gradients / machine.host_link, moved.fetched / machine.host_link
    early = 1 - last_share(run)
    late = Travel(0.0, (1 - early) * gradients, (1 - early) * away)
    if parallel.zero == 3:
        first = forward_share(run)
        then = 1 - first
        return [
            Travel(forward, first * weights, first * fetched),
            Travel(backward, then * weights + early * gradients, then * fetched + early * away),
            late,
        ]
    hiding = {0: 0.0, 1: backward / run.accumulation, 2: backward}[parallel.zero]
    if parallel.pipeline > 1:
        hiding = 0.0
    return [Travel(hiding, early * gradients, early * away), late, Travel(0.0, weights, 0.0)]


def backward_share(run: RunShape) -> float:
    """The part of a step's computing that backward passes are: two forward passes' worth, and one
    more where activations are computed again.
    """
    again = 1 if run.config.parallel.activation_checkpointing else 0
    return (2 + again) / (3 + again)


class Links:
    """Bytes/s between the ranks of each kind of group: the network's where a group spans nodes."""

    def __init__(self, run: RunShape, machine: Machine) -> None:
        self._workers, self._machine = run.workers, machine
        parallel = run.config.parallel
        self.tensor = self.of(parallel.tensor, 1)
        self.sequence = self.of(parallel.sequence, 1)
        self.pipeline = self.of(parallel.pipeline, parallel.data)
        self.replicas = self.of(run.replicas, parallel.tensor)
        """Of those that hold the same weights; tensor ranks stand between them."""

    def of(self, size: int, apart: int) -> float:
        """Between `size` ranks, each `apart` from the next."""
        node, machine = self._machine.per_node, self._machine
        block = size * apart
        spans = any(
            first // node != (first + block - apart) // node
            for start in range(0, self._workers, block)
            for first in range(start, start + apart)
        )
        return machine.network if spans else machine.link


__all__ = ["StepTime", "Travel", "Work", "behind", "exposed_seconds", "step_time"]
