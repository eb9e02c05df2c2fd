"""What makes a decoder fast on a GPU, by choice and in place: compiled layers, float8, recomputing.

Each layer is compiled by itself (torch.compile): all share one graph, so the compiler's time does
not grow with depth, and names of parameters stay as they are. Each shape has a graph of its own,
since one for all of them would be slower for the shape that training spends its time in.
"""

from __future__ import annotations

import torch

from model.float8 import use_float8
from model.kernels import allow_shapes
from model.transformer import Transformer


def accelerate(
    model: Transformer,
    *,
    compiled: bool = True,
    float8: bool = False,
    recompute: bool = False,
    device: torch.device | None = None,
) -> Transformer:
    """The same model, faster; call it before training.

    `device` is where it will be trained, if its weights are not there yet. `float8` runs the
    layers' matrix products in 8 bits (not the head's); `recompute` keeps only each layer's input
    for backward and computes the rest again, trading time for memory.
    """
    if float8:
        _check_float8(device or model.lm_head.weight.device)
        use_float8(model.model.layers)
    model.model.recompute = recompute
    if compiled:
        allow_shapes()
        for layer in model.model.layers:
            layer.compile(dynamic=False)
        model.model.norm.compile(dynamic=False)
    return model


def _check_float8(device: torch.device) -> None:
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < (8, 9):
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}; "
            "float8 expects 8.9 or newer (Ada, Hopper, Blackwell): train in bfloat16"
        )
