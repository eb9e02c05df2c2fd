"""In what numbers forward and backward passes run; weights and optimizer stay float32.

`auto` is bfloat16 where the hardware multiplies it natively (a GPU, a processor with AMX or
AVX512-BF16, where a small model trains 1.6 times as fast), float32 elsewhere. `float8` is bfloat16
with the layers' matrix products in 8 bits (`model.float8`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from stages.tune.parallel import Parallel

Precision = Literal["auto", "float32", "bfloat16"]
TILE = 16
"""What the tensor cores ask of a float8 matrix: both sides are multiples of it."""


def uses_bfloat16(precision: Precision | Literal["float8"], gpu: bool) -> bool:
    """Whether passes are computed under autocast to bfloat16 on this machine."""
    if precision != "auto":
        return precision != "float32"
    import torch

    known = torch.cpu.get_capabilities()
    return gpu or bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def check_float8(parallel: Parallel, sizes: Mapping[str, Any], sequence_length: int) -> None:
    """Raise ValueError where layers cannot run in float8; `sizes` are ModelConfig's fields.

    The gradient of a weight is a product over tokens, so the sequence is one of the widths.
    """
    if not parallel.gpu:
        raise ValueError(
            "precision is float8 and parallel.gpu false: only GPUs multiply 8-bit floats (Ada, "
            "Hopper and newer); use auto"
        )
    if parallel.opaque:
        raise ValueError(
            f"precision is float8 with {parallel.opaque}, where DeepSpeed has layers of its own: "
            "use bfloat16, or data parallelism with zero 0 to 2"
        )
    heads = {name: sizes[name] * sizes["head_dim"] for name in _HEADS}
    widths = {name: sizes[name] for name in ("hidden_size", "intermediate_size")}
    widths |= {"sequence_length": sequence_length}
    for name, width in (widths | {f"{n} x head_dim": w for n, w in heads.items()}).items():
        if width % TILE:
            raise ValueError(
                f"precision is float8 and {name} is {width}, not a multiple of {TILE}: choose "
                "another width, or bfloat16"
            )


_HEADS = ("num_attention_heads", "num_key_value_heads")
