"""What weights a model rank has, one by one, and what the optimizer keeps of them.

Most formulas need only their sum. Muon's work, and buffers that hold one whole weight, depend on
the sizes; `tests/stages/planning` compares them with a real model's.
"""

from __future__ import annotations

import math

from model.config import ModelConfig
from stages.planning.run_shape import RunShape

Size = tuple[int, int, int]
"""A stack of matrices, as experts are (else 1), and their rows and columns."""


def layer_matrices(model: ModelConfig, layer: int) -> list[Size]:
    """The weights of one layer that multiply hidden states."""
    return [*_attention_matrices(model), *_mlp_matrices(model, layer)]


def _attention_matrices(model: ModelConfig) -> list[Size]:
    hidden, heads = model.hidden_size, model.num_attention_heads
    output = (1, hidden, heads * model.value_width)
    if not model.latent:
        keys = (1, model.num_key_value_heads * model.head_dim, hidden)
        return [(1, heads * model.head_dim, hidden), keys, keys, output]
    found = [(1, model.q_lora_rank, hidden)] if model.q_lora_rank else []
    latent = model.kv_lora_rank
    return [
        *found,
        (1, heads * model.head_dim, model.q_lora_rank or hidden),
        (1, latent + model.qk_rope_head_dim, hidden),
        (1, heads * (model.qk_nope_head_dim + model.v_head_dim), latent),
        output,
    ]


def _mlp_matrices(model: ModelConfig, layer: int) -> list[Size]:
    hidden = model.hidden_size
    if not model.has_experts(layer):
        return _swiglu(hidden, model.intermediate_size)
    experts, inner = model.num_experts, model.moe_intermediate_size
    shared = (model.n_shared_experts or 0) * inner
    return [
        (1, experts, hidden),
        (experts, 2 * inner, hidden),
        (experts, hidden, inner),
        *(_swiglu(hidden, shared) if shared else []),
    ]


def _swiglu(hidden: int, inner: int) -> list[Size]:
    return [(1, inner, hidden), (1, inner, hidden), (1, hidden, inner)]


def matrices(run: RunShape) -> list[Size]:
    """Those of the layers of one model rank, of the pipeline stage that has most, in their order.

    Whole: tensor parallelism keeps a part of each.
    """
    layers = math.ceil(run.layers)
    return [size for layer in range(layers) for size in layer_matrices(run.model, layer)]


def largest_weight(run: RunShape) -> int:
    """Numbers of the largest weight that a rank has; a table is never divided."""
    last = layer_matrices(run.model, run.model.num_hidden_layers - 1)
    first = layer_matrices(run.model, 0)
    inner = max(math.prod(size) for size in (*first, *last)) // run.config.parallel.tensor
    return max(inner, run.model.vocab_size * run.model.hidden_size)


def optimizer_bytes(run: RunShape) -> float:
    """Bytes of optimizer state per parameter: AdamW's two moments; Muon's one, for matrices."""
    if run.config.optimizer == "adamw":
        return 8.0
    tables = run.model.vocab_size * run.model.hidden_size
    tables *= 1 if run.model.tie_word_embeddings else 2
    return 4.0 + 4.0 * tables / run.model.parameters()


def checkpoint_bytes(run: RunShape) -> float:
    """One checkpoint: weights and the optimizer's state, float32."""
    return run.model.parameters() * (4.0 + optimizer_bytes(run))
