"""Memory for the part of a hollow model that this rank holds, just before DeepSpeed takes it over.

No rank ever has the whole of a model that is divided: ZeRO 3 divides one module's weights before
the next one's take memory, AutoTP slices weights that have none, and a pipeline's stages leave the
others' layers hollow (`stages.tune.pipeline`). Values come later, with `stages.tune.restore`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from model.hollow import is_hollow, take_memory
from stages.tune.parallel import Parallel

SLICED = ("colwise", "rowwise")
"""Styles of a `_tp_plan` that AutoTP cuts weights for."""


def take_part(model: nn.Module, parallel: Parallel, config: dict[str, Any]) -> None:
    """Give memory to what is hollow in `model`; `config` is DeepSpeed's.

    With AutoTP the rest of ZeRO 3's work is left to DeepSpeed: a rank then has all of its slices
    for a moment.
    """
    device = torch.device("cuda" if parallel.gpu else "cpu")
    plan = getattr(model, "_tp_plan", {}) if parallel.tensor > 1 else {}
    sliced = [pattern for pattern, style in plan.items() if style in SLICED]
    divides = parallel.zero == 3 and parallel.tensor == 1
    for name, part in model.named_modules():
        if any(fnmatchcase(name, pattern) for pattern in sliced):
            continue
        own = [p for p in part.parameters(recurse=False) if is_hollow(p)]
        take_memory(part, device, recurse=False)
        if divides:
            _divide(own, model, config)


def _divide(weights: list[nn.Parameter], model: nn.Module, config: dict[str, Any]) -> None:
    """Leave this rank its part of each weight, as DeepSpeed would in `initialize`."""
    from deepspeed import zero

    for weight in weights:
        first: Any = next((p for p in model.parameters() if hasattr(p, "ds_id")), None)
        if first is None:
            zero.Init(nn.ParameterList([weight]), config_dict_or_path=config)
        else:
            first.convert_to_zero_parameters([weight])
