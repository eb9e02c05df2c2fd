"""Which models `quantize` can write, and what memory it needs: told from their shape alone.

`stages.compress.gguf_file` refuses the same, but needs torch to say so, and the finished model.
"""

from __future__ import annotations

from typing import Any

from model.config import ModelConfig

BLOCK = 32
"""Weights of a row that Q8_0 takes together: `stages.compress.gguf_file`'s."""
GIB = 2**30


def check_quantized(shape: ModelConfig, storage: str) -> None:
    """Raise ValueError for a model that the qwen3 layout of GGUF, or its engine, does not know."""
    written = shape.to_hugging_face()
    architecture = written["architectures"][0]
    if architecture != "Qwen3ForCausalLM":
        raise ValueError(
            f"found a model of architecture {architecture!r}, expected Qwen3ForCausalLM (no "
            "experts, no latent attention, use_qk_norm), the only one that quantize writes: leave "
            "the stage out (null), and serve the model itself"
        )
    if written.get("use_sliding_window"):
        raise ValueError(
            f"found sliding_window {shape.sliding_window}, expected none: the engine of quantized "
            "models looks at all tokens; leave the stage out (null), and serve the model itself"
        )
    kind = written["rope_parameters"]["rope_type"]
    if kind != "default":
        raise ValueError(
            f"found rope_scaling of type {kind!r}, expected none: the engine of quantized models "
            "reads plain rotary embeddings; leave the stage out (null), and serve the model itself"
        )
    rows = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads x head_dim": shape.num_attention_heads * shape.head_dim,
    }
    for name, width in rows.items():
        if storage == "Q8_0" and width % BLOCK:
            raise ValueError(
                f"found {name} {width}, expected a multiple of {BLOCK} for Q8_0: use format F16, "
                "or other widths"
            )


def quantized_figures(shape: ModelConfig) -> dict[str, Any]:
    """The memory of the one process that quantizes: to compare them, it holds both models."""
    whole = 4.0 * shape.parameters()
    return {"memory GiB, of the model and of what it became, both float32": 2 * whole / GIB}
