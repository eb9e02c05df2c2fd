"""DeepSpeed's Muon (Jordan 2024): its groups, its precision, and the norm of its gradients.

ZeRO 1 to 3 make gradients into updates, by orthogonalising whole matrices, before they take any
norm. Updates have one size however large the gradient, so a guard must see the gradient's own norm,
and see it before momentum takes the gradient in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.optimizer import matrices_and_others

LEARNING_RATE_SCALE = "learning_rate_scale"
"""Key of a parameter group: its learning rate is the schedule's times this."""


def muon(
    model: torch.nn.Module, learning_rate: float, weight_decay: float, bfloat16: bool
) -> torch.optim.Optimizer:
    """Muon for the matrices, AdamW for the rest; iterates in the precision that passes run in.

    Newton-Schulz iterations in bfloat16 make 1e-3 of a difference of 1e-7, which any sum in another
    order is: a run in float32 would not continue alike at another parallel shape.
    """
    from deepspeed.runtime.zero.muon import original_muon
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    dtype = torch.bfloat16 if bfloat16 else torch.float32
    original_muon.ns_compute_dtype = lambda *_: dtype
    matrices, others = matrices_and_others(model)
    by_scale: dict[float, list[torch.nn.Parameter]] = {}
    for matrix in matrices:
        by_scale.setdefault(_scale(matrix), []).append(matrix)
    groups: list[dict[str, Any]] = [
        {
            "params": group,
            "use_muon": True,
            "ns_method": "standard",
            "lr": learning_rate * scale,
            "weight_decay": weight_decay / scale,
            LEARNING_RATE_SCALE: scale,
        }
        for scale, group in by_scale.items()
    ]
    groups.append(
        {"params": others, "use_muon": False, "lr": learning_rate, "betas": (0.9, 0.95),
         "eps": 1e-8, "weight_decay": 0.0}
    )  # fmt: skip
    for settings in groups:
        for parameter in settings["params"]:
            parameter.use_muon = settings["use_muon"]
    return MuonWithAuxAdam([group for group in groups if group["params"]])


def is_muon(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `muon` made it."""
    return type(optimizer).__name__ == "MuonWithAuxAdam"


def _scale(matrix: Tensor) -> float:
    """What makes DeepSpeed's update, sqrt(max(1, rows / columns)) times an orthogonal matrix, as
    large as AdamW's typical one: 0.2 sqrt(max(rows, columns)) times it (arXiv:2502.16982).
    """
    rows, columns = matrix.shape
    return round(0.2 * max(rows, columns) ** 0.5 / max(1.0, rows / columns) ** 0.5, 6)


def gradient_norm_before_muon(
    optimizer: Any, measure: Callable[[], float], accept: Callable[[float], bool]
) -> Callable[[], float]:
    """What tells the gradient's norm when DeepSpeed's step asks for that of the updates.

    `measure` is DeepSpeed's own norm of whatever gradients have become. At ZeRO 3 momentum takes a
    gradient in only if its norm is `accept`ed; at ZeRO 1 and 2 DeepSpeed itself waits for that.
    """
    if hasattr(optimizer, "_apply_muon_to_accumulated_grads"):
        return _norm_at_zero_3(optimizer, measure, accept)
    return _norm_at_zero_1_and_2(optimizer)


def _norm_at_zero_3(
    optimizer: Any, measure: Callable[[], float], accept: Callable[[float], bool]
) -> Callable[[], float]:
    make_updates = optimizer._apply_muon_to_accumulated_grads
    seen = [math.inf]

    def make_updates_if_accepted() -> None:
        seen[0] = measure()
        if accept(seen[0]):
            make_updates()

    optimizer._apply_muon_to_accumulated_grads = make_updates_if_accepted
    return lambda: seen[0]


def _norm_at_zero_1_and_2(optimizer: Any) -> Callable[[], float]:
    """Updates are made where a rank's part of a group is laid out flat: measured just before."""
    lay_out = optimizer.get_flat_partition
    squares: dict[int, Tensor] = {}

    def measured(tensors: list[Tensor], first_offset: int, *sizes: Any, **options: Any) -> Any:
        group = options["param_group_idx"]
        if tensors and getattr(tensors[0], "use_muon", False):
            gradients = optimizer.all_grad_tensors[group]
            own = gradients[1:] if first_offset > 0 else gradients  # begun by the rank before
            squares[group] = sum((g.float().square().sum() for g in own), torch.zeros(()))
        return lay_out(tensors, first_offset, *sizes, **options)

    def norm() -> float:
        total = sum(squares.values(), torch.zeros((), device=optimizer.device))
        dist.all_reduce(total, group=optimizer.dp_process_group)
        optimizer._model_parallel_all_reduce(tensor=total, op=dist.ReduceOp.SUM)
        norms = [float(total.sqrt())]
        for group, tensors in enumerate(optimizer.bit16_groups):
            if not getattr(tensors[0], "use_muon", False):
                gradients = optimizer.averaged_gradients[group]
                held = optimizer.params_in_partition[group]
                norms.append(float(optimizer.get_grad_norm_direct(gradients, held)))
        return combined(norms)

    optimizer.get_flat_partition = measured
    return norm


def combined(norms: list[float]) -> float:
    """The norm of parts whose norms are given; DeepSpeed says -1 for one that is not finite."""
    whole = math.hypot(*norms) if min(norms) >= 0 else math.inf
    return whole if math.isfinite(whole) else math.inf
