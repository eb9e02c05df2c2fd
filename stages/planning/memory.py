"""Memory of one worker in training, by part, in bytes.

Weights, gradients and optimizer states follow ZeRO (arXiv:1910.02054, section 5): what a stage
divides is divided by the data degree. Activations are counted from what the decoder's layers keep
for the backward pass; `tests/stages/planning` counts the same on a real model.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from stages.planning.buckets import bucket_bytes
from stages.planning.communication import LIVE_NUMBERS
from stages.planning.host import host_memory
from stages.planning.newton_schulz import held_bytes
from stages.planning.run_shape import RunShape
from stages.planning.weights import largest_weight, optimizer_bytes

CHUNK_TOKENS, CHUNK_LOGITS = {"cpu": 1024, "cuda": 4096}, 1 << 23
"""Tokens, and logits, that live at a time: `model.loss`'s, which is not imported for torch."""
ATTENTION_BLOCK = 128
"""Queries of a block: `model.cpu_attention`'s, likewise."""
RESERVED = 2 * 2**30
"""The CUDA context, NCCL's buffers and cuBLAS's workspaces; nothing of it is the model's."""
FRAGMENTS = 0.05
"""An allowance for what the caching allocator loses to fragments; an assumption."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker's device at the peak of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float

    @property
    def total(self) -> float:
        return sum(astuple(self))

    @property
    def reserve(self) -> float:
        """What must stay free beside it, for what nobody can count."""
        return self.total * FRAGMENTS + RESERVED

    def fits(self, capacity: float) -> bool:
        """Whether a device of `capacity` bytes holds it, and the reserve."""
        return self.total + self.reserve <= capacity


def training_memory(run: RunShape) -> Memory:
    """Memory of one worker of `run`. A processor's own is also the host's: what is offloaded there
    stays.
    """
    parallel = run.config.parallel
    ranks, zero = run.replicas, parallel.zero
    away, host = parallel.offload_optimizer is not None, host_memory(run)
    master = 4.0 if zero else 0.0  # ZeRO keeps a float32 copy of its part, float32 or not
    optimizer = run.held * (optimizer_bytes(run) + master) / (ranks if zero else 1)
    weights = run.held * 4.0 / (ranks if zero == 3 else 1)
    gradients = run.held * 4.0 / (ranks if zero >= 2 else 1)
    if away and zero >= 2:  # each leaves for the host as soon as it is reduced
        gradients = 0.0
    activations, logits = activation_bytes(run), logit_bytes(run)
    updating = max(0.0, held_bytes(run) - activations - logits)  # which have gone by then
    return Memory(
        weights=(0.0 if parallel.offload_weights else weights) + stays(run, host.weights),
        gradients=gradients + stays(run, host.gradients),
        optimizer=(0.0 if away else optimizer) + stays(run, host.optimizer),
        activations=activations,
        logits=logits,
        buffers=buffer_bytes(run) + updating + stays(run, host.copies),
    )


def stays(run: RunShape, offloaded: float) -> float:
    """Bytes on the device of what is offloaded to its host."""
    return 0.0 if run.config.parallel.gpu else offloaded


def layer_activations(run: RunShape) -> float:
    """Bytes per token that one layer keeps for its backward pass, on one worker.

    Both norms keep their input and output (4d), attention its rotated queries and keys, its values
    and its output (Q + K + V + O), q and k norms their inputs (Q + K), latents their norms' input
    and output, SwiGLU gate, up, their product and silu(gate) (4F), experts what they are dealt and
    give back, statistics a number per head and norm; and heads their weights where
    attention is products. Korthikanti et al. (arXiv:2205.05198, section 4) count the GPT-2 layer
    likewise. Under bfloat16 autocast, norms keep float32 inputs.
    """
    model, tensor = run.model, run.config.parallel.tensor
    number = 2 if run.precision == "bfloat16" else 4
    wide = 2 * model.hidden_size * (4 + number)
    turned = run.query_width + run.key_width
    heads = number * (turned * (1 + model.use_qk_norm) + run.value_width + run.output_width)
    inner = number * (4 * run.inner_width + 2 * run.latent_width)
    dealt = number * 3 * run.copies * model.hidden_size
    statistics = 4 * (2 * model.num_attention_heads + model.num_key_value_heads + 2)
    looked = number * model.num_attention_heads * weights_kept(run)
    fused = run.masked and not looked
    mask = 4 * run.config.sequence_length if fused else 0  # as numbers, one row a token
    return wide + dealt + (heads + inner + statistics + looked) / tensor + mask


def weights_kept(run: RunShape) -> float:
    """Keys, on average over its queries, whose weights a head keeps: in bfloat16 on a CPU, of a
    block of queries, all up to its end. The fused kernels keep none.
    """
    length = run.config.sequence_length
    if run.config.parallel.gpu or run.precision == "float32":
        return 0.0
    ends = range(ATTENTION_BLOCK, length + ATTENTION_BLOCK, ATTENTION_BLOCK)
    return (
        sum(min(end, length) * (min(end, length) - end + ATTENTION_BLOCK) for end in ends) / length
    )


def activation_bytes(run: RunShape) -> float:
    """Bytes kept between forward and backward, of all micro-batches that are in flight."""
    parallel, model = run.config.parallel, run.model
    layers = run.layers
    per_token = layer_activations(run) * layers
    if parallel.activation_checkpointing:  # each layer's input, and one layer made anew
        per_token = layers * 4 * model.hidden_size + layer_activations(run)
    in_flight = min(parallel.pipeline, run.accumulation)  # 1F1B (arXiv:2104.04473, section 2.2)
    ends = 4 * model.hidden_size * 3  # the embeddings, the last norm's input and output
    return run.tokens * (per_token * in_flight + ends) + cast_bytes(run)


def cast_bytes(run: RunShape) -> float:
    """The layers' weights in bfloat16, which autograd keeps, whole, for their backward pass."""
    if run.precision == "float32":
        return 0.0
    kept = 1 if run.config.parallel.activation_checkpointing else run.layers
    return 2.0 * run.matrices * kept / run.layers


def logit_bytes(run: RunShape) -> float:
    """The chunked loss's peak: a chunk's logits and probabilities, gradients of hidden and head.

    Tensor parallelism leaves the head whole.
    """
    model = run.model
    chunk = CHUNK_TOKENS["cuda" if run.config.parallel.gpu else "cpu"]
    if not run.config.parallel.gpu:
        chunk = max(64, min(chunk, CHUNK_LOGITS // model.vocab_size))
    held = min(chunk, run.tokens)
    hidden = run.tokens * model.hidden_size * 4
    head = 4 if run.precision == "float32" else 6  # its gradient, and itself cast
    return held * model.vocab_size * 8 + hidden + model.vocab_size * model.hidden_size * head


def buffer_bytes(run: RunShape) -> float:
    """What gradients are gathered in on their way to other workers or the host, and ZeRO 3's whole
    weights.
    """
    parallel = run.config.parallel
    held = bucket_bytes(run)
    if parallel.zero == 3:  # what is fetched ahead or kept, and the layer at work
        held += 4.0 * min(run.held, LIVE_NUMBERS + run.matrices / run.layers)
    elif parallel.offload_optimizer:  # one weight's, fetched back to be added to
        held += 4.0 * largest_weight(run)
    return held
