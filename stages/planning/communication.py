"""What workers send each other in one step, in bytes that each worker sends.

Ring algorithms: n workers reduce to all, or scatter and gather, at (n - 1) / n of the data in each
of the two halves (Patarasuk and Yuan, 2009).
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import prod

from stages.planning.buckets import bucket_numbers
from stages.planning.newton_schulz import gathered_bytes
from stages.planning.run_shape import RunShape
from stages.planning.weights import matrices

LIVE_NUMBERS = 1e9
"""DeepSpeed's stage3_max_live_parameters: what ZeRO 3 has gathered at a time."""


@dataclass(frozen=True)
class Communication:
    """Bytes that one worker sends in one step."""

    gradients: float
    """Reduced over the data degree."""
    weights: float
    """Gathered by ZeRO."""
    updates: float
    """Gathered by Muon at ZeRO 3."""
    tensor: float
    sequence: float
    pipeline: float

    @property
    def total(self) -> float:
        return sum(astuple(self))


def step_communication(run: RunShape) -> Communication:
    """The bytes one worker of `run` sends in one step, which `tests/dist` counts.

    DeepSpeed sums gradients on all ranks also where ZeRO 1 or 2 keeps a part of them, at ZeRO 2
    and 3 after every micro-batch, since none is kept whole; ZeRO 3 gathers the weights for every
    forward and every backward pass (arXiv:1910.02054, section 7), but for those it still holds.
    With Muon, ZeRO 3 does not scatter gradients but sums them on all ranks.
    Tensor parallelism sums what two products of a layer give, and in the backward pass what each of
    the five before them is given (Megatron-LM, arXiv:1909.08053, joins those in two). Ulysses
    exchanges queries, keys, values and outputs (arXiv:2309.14509); a pipeline hands on hidden
    states, their gradients, and the numbers of the documents.
    """
    parallel, model = run.config.parallel, run.model
    share = (run.replicas - 1) / run.replicas
    held, passes = 4.0 * run.held, run.accumulation
    scattered = {0: 2 * held, 1: 2 * held, 2: 2 * passes * held, 3: passes * held}
    reduced = scattered[parallel.zero]
    if parallel.zero == 3 and run.config.optimizer == "muon":
        reduced += 4.0 * passes * summed_numbers(run)
    gathered = {0: 0.0, 1: held, 2: held, 3: 4.0 * fetched_numbers(run)}[parallel.zero]
    number = 2 if run.precision == "bfloat16" else 4
    tokens = run.step_tokens
    forward = 2 if parallel.activation_checkpointing else 1
    tensor_share = 2 * (parallel.tensor - 1) / parallel.tensor
    sequence_share = (parallel.sequence - 1) / parallel.sequence
    exchanged = run.query_width + run.key_width + run.value_width + run.output_width
    sums = 2 * forward + 5
    ways = min(2, parallel.pipeline - 1)  # the first stage sends forward, the last backward
    return Communication(
        gradients=share * reduced,
        weights=share * gathered,
        updates=share * gathered_bytes(run),
        tensor=tensor_share * tokens * number * model.hidden_size * run.layers * sums,
        sequence=sequence_share
        * tokens * number * exchanged * run.layers * (forward + 1),
        pipeline=tokens * (ways * 4 * model.hidden_size + 8) if ways else 0.0,
    )  # fmt: skip


def fetched_numbers(run: RunShape) -> float:
    """Weights that ZeRO 3 gathers in a step: for every forward and backward pass, but for those
    that it still holds.
    """
    return run.accumulation * (2 * run.held - min(run.held, LIVE_NUMBERS))


def forward_share(run: RunShape) -> float:
    """The part of those weights that forward passes gather: what is still held at their end, the
    backward passes need not.
    """
    return run.accumulation * run.held / fetched_numbers(run)


def summed_numbers(run: RunShape) -> float:
    """Numbers whose gradients ZeRO 3 sums on all ranks with Muon: all but those of weights larger
    than a bucket, which it scatters nevertheless.
    """
    larger = [n for size in matrices(run) if (n := prod(size)) > bucket_numbers(run)]
    table = run.model.vocab_size * run.model.hidden_size
    return run.held - sum(larger) - (run.tables if table > bucket_numbers(run) else 0)
