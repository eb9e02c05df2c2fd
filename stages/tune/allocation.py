"""Memory for the part of a hollow model that this rank holds, while DeepSpeed takes it over.

No rank ever has the whole of a model that is divided: a pipeline's stages leave the others' layers
hollow (`stages.tune.pipeline`), AutoTP slices weights that have no memory, and ZeRO 3 divides one
weight before the next one has any. Values come later, with `stages.tune.restore`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from model.hollow import is_hollow, take_memory
from stages.tune.parallel import Parallel


@contextlib.contextmanager
def taking_part(parallel: Parallel, config: dict[str, Any]) -> Iterator[None]:
    """Within, `deepspeed.initialize` gives memory to what is hollow in its model.

    It does so after AutoTP, which comes first in it, and before weights go to the device, are
    broadcast and divided: DeepSpeed has no other place for it. `config` is DeepSpeed's.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine

    take_over = DeepSpeedEngine._configure_distributed_model

    def take_part_first(engine: Any, model: nn.Module) -> None:
        _take_part(model, parallel, config, engine.mpu)
        take_over(engine, model)

    DeepSpeedEngine._configure_distributed_model = take_part_first
    try:
        yield
    finally:
        DeepSpeedEngine._configure_distributed_model = take_over


def _take_part(model: nn.Module, parallel: Parallel, config: dict[str, Any], groups: Any) -> None:
    device = torch.device("cuda" if parallel.gpu else "cpu")
    for part in list(model.modules()):
        hollow = [p for p in part.parameters(recurse=False) if is_hollow(p)]
        take_memory(part, device, recurse=False)
        if parallel.zero == 3:
            _divide(hollow, model, config, groups)


def _divide(
    weights: list[nn.Parameter], model: nn.Module, config: dict[str, Any], groups: Any
) -> None:
    """Leave this rank its part of each weight, as DeepSpeed later would."""
    from deepspeed import zero

    for weight in weights:
        divided: Any = next((p for p in model.parameters() if hasattr(p, "ds_id")), None)
        if divided is not None:
            divided.convert_to_zero_parameters([weight])
            continue
        group = groups.get_data_parallel_group() if groups else None
        zero.Init(
            nn.ParameterList([weight]), data_parallel_group=group, config_dict_or_path=config,
            mpu=groups,
        )  # fmt: skip
