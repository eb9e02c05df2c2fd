"""The arithmetic of one training step on one worker: FLOPs, bytes through memory, kernels.

Products count 2 FLOPs for each weight and token forward and twice that backward; attention's
scores and values 4 FLOPs for each query, key and channel. What is not a product is bound by memory
and counted in passes over tensors, read and written, as the layers' code makes them;
`tests/stages/planning` counts the same on a real model, operation by operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from model.config import keys_seen
from stages.planning.newton_schulz import newton_schulz_flops
from stages.planning.run_shape import RunShape

KERNELS_PER_LAYER = (40, 60)
"""Operations that forward and backward of a layer start."""
ATTENTION_BACKWARD = 2.5
"""Products of the fused backward pass over the forward's: five for two (arXiv:2307.08691)."""
OPTIMIZER_PASSES = 10
"""AdamW reads four numbers and writes three for each parameter; the norm and the zeroing of
gradients pass three times more."""

COMPILED_PASSES = 0.2
"""What is left of a layer's passes where a compiler fuses them, calibrated on one measurement:
`tests.bench.mfu` reached 51 % on an H100 with 1.07 billion parameters, the model alone, compiled,
all numbers bfloat16. What products, attention, loss and update are planned to take leaves a fifth
of those passes' time. So it takes in whatever else is off, the shares of `stages.hardware` above
all; and the training stage, whose numbers have three bytes on average, was not measured on a
GPU."""


@dataclass(frozen=True)
class Work:
    """What one worker does in one step; all micro-batches together."""

    product_flops: float
    attention_flops: float
    passes_bytes: float
    """Through memory, for what is not a product."""
    update_bytes: float
    """Through memory, by the optimizer."""
    newton_schulz_flops: float
    """Of Muon's products."""
    kernels: float


def step_work(run: RunShape) -> Work:
    """The work of one worker in one step of `run`."""
    parallel = run.config.parallel
    again = 1 if parallel.activation_checkpointing else 0  # one more forward pass
    tokens = run.step_tokens
    head = run.model.vocab_size * run.model.hidden_size  # whole on every rank that has it
    layers = run.model.parameters(embedding=False, active=True) - head
    inner = 2.0 * layers / (parallel.tensor * parallel.pipeline)
    products = (3 + again) * inner + 3 * 2.0 * head  # what is computed again ends below the head
    width = 2.0 * (run.query_width + run.output_width)
    attention = width * keys_per_query(run) * run.layers / parallel.tensor
    forward, backward = layer_passes(run)
    passes = run.layers * ((1 + again) * forward + backward) * fused(run) + head_passes(run)
    shards = run.replicas if parallel.zero else 1
    held = run.held * 4.0
    return Work(
        product_flops=tokens * products,
        attention_flops=tokens * attention * (1 + again + ATTENTION_BACKWARD),
        passes_bytes=tokens * passes + run.accumulation * held * 3,  # gradients added up
        update_bytes=held / shards * OPTIMIZER_PASSES,
        newton_schulz_flops=newton_schulz_flops(run),
        kernels=run.accumulation
        * run.layers
        * ((1 + again) * KERNELS_PER_LAYER[0] + KERNELS_PER_LAYER[1]),
    )


def keys_per_query(run: RunShape) -> float:
    """Keys that the kernel visits for a query: all of them under a dense mask, else those seen."""
    length = run.config.sequence_length
    if run.masked:
        return float(length)
    return fmean(keys_seen(length, window) for window in run.model.windows)


def layer_passes(run: RunShape) -> tuple[float, float]:
    """(forward, backward) bytes per token through memory of a layer, products apart.

    Numbers read and written, forward: RMSNorm 5 for each of its width (2d + W + K in all), rotary
    7 (W + K), two residual sums 6d, SwiGLU 5F. Backward: RMSNorm 12, rotary 7, SwiGLU 9F, and 15d
    where gradients meet.
    """
    model, tensor = run.model, run.config.parallel.tensor
    number = 3 if run.precision == "bfloat16" else 4  # bfloat16 products among float32 sums
    heads = (run.query_width + run.key_width) / tensor
    inner = (run.inner_width + run.copies * model.hidden_size) / tensor
    forward = 16 * model.hidden_size + 12 * heads + 5 * inner
    backward = 39 * model.hidden_size + 19 * heads + 9 * inner
    return number * forward, number * backward


def fused(run: RunShape) -> float:
    """The part of a layer's passes that is made: on processors all, compiled or not; what a
    compiler saves there was not measured.
    """
    parallel = run.config.parallel
    return COMPILED_PASSES if parallel.gpu and parallel.compiles else 1.0


def head_passes(run: RunShape) -> float:
    """Bytes per token through memory of the loss: logits, their softmax, its gradient."""
    number = 20 if run.precision == "bfloat16" else 24
    return number * run.model.vocab_size + 12 * 4 * run.model.hidden_size
