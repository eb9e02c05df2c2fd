"""Modules whose parameters have a shape and no memory, until they are told to take it.

For models of which a process holds a part, or whose values are about to be read from files. Unlike
torch's meta tensors, hollow parameters can be sliced and handed to optimizers, and stay the same
objects when they take memory, so nothing that refers to them must be told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def hollow(build: Callable[[], M], device: torch.device | str = "cpu") -> M:
    """`build()`'s module, hollow; its buffers are zeros on `device`. Ties stay ties."""
    with torch.device("meta"):
        module = build()
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) not in made:
                shape_only = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
                made[id(parameter)] = nn.Parameter(shape_only, parameter.requires_grad)
            setattr(part, name, made[id(parameter)])
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.zeros_like(buffer, device=device))
    return module


def is_hollow(tensor: Tensor) -> bool:
    """Whether a tensor's elements all lie in one place."""
    return tensor.ndim > 0 and not any(tensor.stride())


def take_memory(
    module: nn.Module, device: torch.device | str = "cpu", *, recurse: bool = True
) -> None:
    """Give a module's hollow parameters memory on `device`; what is in it, is undefined.

    Without `recurse` only the module's own, not those of the modules in it.
    """
    for parameter in module.parameters(recurse):
        if is_hollow(parameter):
            parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
