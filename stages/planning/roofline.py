"""How long a step takes: the slower of computing and of moving, part by part.

The roofline (Williams, Waterman and Patterson, 2009) by kinds of work: products and attention at
the FLOP/s they reach, everything else at the memory's bandwidth. Gradients and weights travel
behind the backward pass and cost what does not fit there; a tensor or sequence group waits for each
exchange; a pipeline of p stages and m micro-batches idles (p - 1) / m of the time
(arXiv:2104.04473, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.planning.communication import Communication, step_communication
from stages.planning.machine import Machine
from stages.planning.run_shape import RunShape
from stages.planning.work import Work, step_work

BACKWARD_SHARE = 2 / 3
"""The part of a step's products that gradients can travel behind."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on one worker, by part."""

    products: float
    attention: float
    passes: float
    update: float
    communication: float
    """Exposed: not hidden behind computing."""
    idle: float
    """Waiting for the pipeline to fill and drain."""

    @property
    def total(self) -> float:
        return (
            self.products + self.attention + self.passes + self.update
            + self.communication + self.idle
        )  # fmt: skip


def step_time(run: RunShape, machine: Machine) -> StepTime:
    """The seconds of one step of `run` on workers of this kind."""
    work, sent = step_work(run), step_communication(run)
    products = work.product_flops / machine.products
    attention = work.attention_flops / machine.attention
    passes = work.passes_bytes / machine.bandwidth + work.kernels * machine.kernel_s
    computing = products + attention + passes
    stages = run.config.parallel.pipeline
    return StepTime(
        products=products,
        attention=attention,
        passes=passes,
        update=work.update_bytes / machine.streaming,
        communication=exposed_seconds(run, machine, sent, computing),
        idle=computing * (stages - 1) / run.accumulation if stages > 1 else 0.0,
    )


def exposed_seconds(
    run: RunShape, machine: Machine, sent: Communication, computing: float
) -> float:
    """Seconds of a step that workers wait for each other's bytes."""
    parallel = run.config.parallel
    inside = machine.link if parallel.model_ranks <= machine.per_node else machine.network
    across = machine.link if run.workers <= machine.per_node else machine.network
    travelling = (sent.gradients + sent.weights) / across
    hidden = BACKWARD_SHARE * computing if parallel.gpu else 0.0
    waiting = (sent.tensor + sent.sequence + sent.pipeline) / inside
    return max(0.0, travelling - hidden) + waiting


__all__ = ["StepTime", "Work", "exposed_seconds", "step_time"]
