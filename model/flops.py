"""Model FLOPs utilisation: the arithmetic a model needs over what the device could have done.

MFU = tokens per second x FLOPs per token / peak FLOP/s (PaLM, arXiv:2204.02311, appendix B). FLOPs
are the model's (`ModelConfig.flops_per_token`), not the kernels': what a causal mask, a window or a
document's border hides counts nothing even where a kernel computes it, and neither does what is
computed twice to save memory. PaLM itself counts attention without a mask, so its figures (and
those of everybody who copies its 12·L·H·Q·T) are a little higher for the same speed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from model.config import ModelConfig

if TYPE_CHECKING:  # a recipe needs the peaks alone
    import numpy as np

Precision = Literal["float32", "bfloat16", "float8"]

PEAK_FLOPS: dict[str, dict[Precision, float]] = {
    "GB200": {"bfloat16": 2.5e15, "float8": 5.0e15},
    "B200": {"bfloat16": 2.25e15, "float8": 4.5e15},
    "H200 NVL": {"float32": 60e12, "bfloat16": 835.5e12, "float8": 1671e12},
    "H200": {"float32": 67e12, "bfloat16": 989.4e12, "float8": 1978.9e12},
    "H100 NVL": {"float32": 60e12, "bfloat16": 835.5e12, "float8": 1671e12},
    "H100 PCIe": {"float32": 51e12, "bfloat16": 756e12, "float8": 1513e12},
    "H100": {"float32": 67e12, "bfloat16": 989.4e12, "float8": 1978.9e12},
    "A100": {"float32": 19.5e12, "bfloat16": 312e12},
    "L40S": {"float32": 91.6e12, "bfloat16": 362e12, "float8": 733e12},
    "RTX 4090": {"float32": 82.6e12, "bfloat16": 165.2e12, "float8": 330.3e12},
}
"""Dense FLOP/s from NVIDIA's data sheets (which print twice as much, for sparse matrices), by a
part of the device's name; the first that fits counts. float32 without TF32, as PyTorch multiplies
unless told."""


PART_OR_LESSER = re.compile(r"\bMIG\b|-\d+[A-Z]$|Laptop|4090 D\b")
"""Names of what is not the whole listed device: a slice, a virtual GPU ("GRID A100-10C"), or a
slower one that is called nearly the same."""


def peak_flops(device_name: str, precision: Precision = "bfloat16") -> float | None:
    """The data sheet's dense FLOP/s of a device as torch names it; None for what is not listed."""
    if PART_OR_LESSER.search(device_name):
        return None
    for part, peaks in PEAK_FLOPS.items():
        if part in device_name:
            return peaks.get(precision)
    return None


def packed_flops_per_token(
    config: ModelConfig, lengths: Sequence[int] | np.ndarray, *, training: bool = True
) -> float:
    """FLOPs per token of documents of these lengths, packed under a document mask.

    Each document's tokens look at their own document only, so it counts as a sequence of its own:
    sum of n·FLOPs(n) over sum of n.
    """
    import numpy as np

    n = np.asarray(lengths, np.float64)
    keys = 0.0
    for window, layers in Counter(config.windows).items():
        reach = np.minimum(n, window) if window else n
        keys += layers * float((reach * (reach + 1) / 2 + (n - reach) * reach).sum())
    pairs = 2 * config.num_attention_heads * (config.head_dim + config.value_width)
    forward = 2 * config.parameters(embedding=False, active=True) + pairs * keys / float(n.sum())
    return 3 * forward if training else forward


def document_lengths(document_ids_bt: np.ndarray) -> np.ndarray:
    """Lengths of the documents, and parts of documents, in rows of packed tokens: where the number
    changes, or the row ends, another begins. Integers, row after row.
    """
    import numpy as np

    begins = np.ones(document_ids_bt.shape, dtype=bool)
    begins[:, 1:] = document_ids_bt[:, 1:] != document_ids_bt[:, :-1]
    return np.diff(np.flatnonzero(begins), append=document_ids_bt.size)
