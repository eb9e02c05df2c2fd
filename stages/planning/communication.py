"""What workers send each other in one step, in bytes that each worker sends.

Ring algorithms: n workers reduce to all, or scatter and gather, at (n - 1) / n of the data in each
of the two halves (Patarasuk and Yuan, 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.planning.run_shape import RunShape


@dataclass(frozen=True)
class Communication:
    """Bytes that one worker sends in one step."""

    gradients: float
    """Reduced over the data degree."""
    weights: float
    """Gathered by ZeRO."""
    tensor: float
    sequence: float
    pipeline: float

    @property
    def total(self) -> float:
        return self.gradients + self.weights + self.tensor + self.sequence + self.pipeline


def step_communication(run: RunShape) -> Communication:
    """The bytes one worker of `run` sends in one step.

    ZeRO 2 and 3 reduce gradients after every micro-batch, since none is kept whole; ZeRO 3 gathers
    the weights for every forward and every backward pass (arXiv:1910.02054, section 7). Tensor
    parallelism sums a layer's output four times, six with a second forward pass (arXiv:1909.08053,
    section 3); Ulysses exchanges queries, keys, values and outputs (arXiv:2309.14509).
    """
    parallel, model = run.config.parallel, run.model
    data = parallel.data
    share = (data - 1) / data
    held = 4.0 * run.held
    often = run.accumulation if parallel.zero >= 2 else 1
    gathered = {0: 1, 1: 1, 2: 1, 3: 2 * run.accumulation}[parallel.zero]
    number = 2 if run.precision == "bfloat16" else 4
    tokens = run.tokens * run.accumulation
    again = 1 if parallel.activation_checkpointing else 0
    tensor_share = 2 * (parallel.tensor - 1) / parallel.tensor
    sequence_share = (parallel.sequence - 1) / parallel.sequence
    exchanged = run.query_width + run.key_width + run.value_width + run.output_width
    return Communication(
        gradients=share * held * often,
        weights=share * held * gathered,
        tensor=tensor_share * tokens * number * model.hidden_size * run.layers * (4 + 2 * again),
        sequence=sequence_share
        * tokens * number * exchanged * run.layers * (2 + again),
        pipeline=2 * tokens * number * model.hidden_size if parallel.pipeline > 1 else 0.0,
    )  # fmt: skip
