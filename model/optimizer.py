"""Optimizers over the decoder's parameter groups: AdamW, and Muon for the matrices.

The layers' matrices decay; norms, embeddings and the head do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

Kind = Literal["adamw", "muon"]
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: steep at zero, so five steps bring singular values into about [0.7, 1.2]."""


def build_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    kind: Kind = "adamw",
    *,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters; set each `group["lr"]` to follow a schedule.

    "adamw" can be handed to DeepSpeed as client optimizer at any ZeRO stage; "muon" works on whole
    matrices, so only where no rank holds flat slices of them (ZeRO 0).
    """
    matrices, others = matrices_and_others(model)
    if kind == "adamw":
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
    if kind == "muon":
        return Muon(matrices, others, learning_rate, weight_decay, betas=betas)
    raise ValueError(f"optimizer is {kind!r}; expected 'adamw' or 'muon'")


def matrices_and_others(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The layers' trainable matrices, and the rest: norms, embeddings, the head."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_table = id(parameter) in embeddings or name.endswith("lm_head.weight")
        (matrices if parameter.ndim >= 2 and not is_table else others).append(parameter)
    return matrices, others


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised for matrices (Jordan 2024), AdamW for the rest, as one optimizer.

    A matrix's update is scaled by 0.2·sqrt(max(rows, columns)), which gives it AdamW's typical size
    (arXiv:2502.16982), so one learning rate serves both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "muon": True, "weight_decay": weight_decay},
            {"params": list(others), "muon": False, "weight_decay": 0.0},
        ]
        defaults = {"lr": learning_rate, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def _muon(
        self, weight: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        buffer = cast(Tensor, state.setdefault("momentum_buffer", torch.zeros_like(grad)))
        buffer.lerp_(grad, 1 - group["momentum"])
        direction = orthogonalize(grad.lerp(buffer, group["momentum"]))  # Nesterov
        scale = 0.2 * max(weight.shape[-2:]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"] * scale)

    def _adamw(
        self, weight: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["exp_avg"], root, value=-group["lr"] / (1 - beta1 ** state["step"]))


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U·V^T of the matrix's singular value decomposition, by Newton-Schulz iteration.

    Singular values come out near 1 (0.7 to 1.2), directions exact; float32. A stack of matrices,
    as experts are, is taken one by one.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.float()
    tall = x.shape[-2] > x.shape[-1]
    wide = x.mT if tall else x
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.mT if tall else wide
