"""Step -> learning rate. A pure function: nothing to save, nothing to resume."""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["wsd", "cosine", "linear"]


def learning_rate(
    step: int,
    total: int,
    peak: float,
    warmup: int,
    kind: Kind = "wsd",
    *,
    floor: float = 0.0,
    decay_fraction: float = 0.2,
) -> float:
    """The learning rate of update `step` (0-based) of `total`.

    Rises linearly over `warmup` updates, reaching `peak` on the last of them. Then:
    "wsd" (warmup-stable-decay, arXiv:2404.06395) holds the peak and falls linearly over the last
    `decay_fraction` of all updates, so that a longer run shares a shorter one's course until its
    decay; "cosine" (arXiv:1608.03983) and "linear" fall from there to the end. `floor` is where the
    fall would arrive at update `total`, as a fraction of `peak`.
    """
    if kind not in ("wsd", "cosine", "linear"):
        raise ValueError(f"schedule is {kind!r}; expected 'wsd', 'cosine' or 'linear'")
    if not 0 <= warmup <= total:
        raise ValueError(f"warmup is {warmup} steps; expected 0 to {total}, the run's length")
    if step < warmup:
        return peak * (step + 1) / warmup
    begin = max(warmup, total - round(decay_fraction * total)) if kind == "wsd" else warmup
    if step < begin:
        return peak
    done = min(1.0, (step - begin) / max(1, total - begin))
    left = (1 + math.cos(math.pi * done)) / 2 if kind == "cosine" else 1 - done
    return peak * (floor + (1 - floor) * left)
