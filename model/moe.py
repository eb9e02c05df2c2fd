"""Mixture of experts: a router, its experts, and balance without an auxiliary loss.

No token is dropped: tokens are sorted by expert and each expert multiplies its own, in one grouped
product. Names and arithmetic are those of DeepSeek-V3 (arXiv:2412.19437, section 2.1.2), which
GLM-4-MoE shares, and of Qwen3-MoE where scores are a softmax.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.config import ModelConfig
from model.layers import SwiGLU

BALANCE_RATE = 1e-3
"""How far a bias moves in a step (DeepSeek-V3, section 4.2)."""


class Router(nn.Module):
    """Chooses a token's experts and what each counts; float32 whatever the model's type."""

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        if config.scoring_func == "sigmoid":
            bias = torch.zeros(config.num_experts)
            self.register_buffer("e_score_correction_bias", bias)
        load = torch.zeros(config.num_experts)
        self.register_buffer("load", load, persistent=False)
        """Tokens that each expert got in training since the last balancing."""

    def forward(self, x_nd: Tensor) -> tuple[Tensor, Tensor]:
        """(weights, experts), each [tokens, num_experts_per_tok]."""
        config = self.config
        wide = torch.promote_types(x_nd.dtype, torch.float32)
        with torch.autocast(x_nd.device.type, enabled=False):
            logits_ne = F.linear(x_nd.to(wide), self.weight.to(wide))
        if config.scoring_func == "softmax":
            scores_ne = logits_ne.softmax(-1)
            chosen_nk = scores_ne.detach().topk(config.num_experts_per_tok, -1).indices
        else:
            scores_ne = logits_ne.sigmoid()
            chosen_nk = self._choose(scores_ne.detach() + self.e_score_correction_bias)
        weights_nk = scores_ne.gather(1, chosen_nk)
        if config.norm_topk_prob:
            weights_nk = weights_nk / (weights_nk.sum(-1, keepdim=True) + 1e-20)
        if self.training and torch.is_grad_enabled():
            self.load += tokens_of(chosen_nk, config.num_experts)
        return weights_nk * config.routed_scaling_factor, chosen_nk

    def _choose(self, biased_ne: Tensor) -> Tensor:
        """The best experts of the groups whose two best experts are best together."""
        config = self.config
        if config.n_group > 1:
            groups_ngs = biased_ne.unflatten(-1, (config.n_group, -1))
            best_ng = groups_ngs.topk(2, -1).values.sum(-1)
            kept = best_ng.topk(config.topk_group, -1).indices
            left_out = torch.ones_like(best_ng, dtype=torch.bool).scatter_(1, kept, False)
            biased_ne = groups_ngs.masked_fill(left_out[..., None], -torch.inf).flatten(1)
        return biased_ne.topk(config.num_experts_per_tok, -1).indices

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Casting the model leaves the bias float32: in 16 bits its small steps would vanish."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            setattr(self, name, buffer.to(self._buffers[name].device))  # type: ignore[union-attr]
        return self


class Experts(nn.Module):
    """SwiGLU experts, their matrices stacked as transformers stacks them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        count, hidden, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, width))

    def forward(self, x_nd: Tensor, weights_nk: Tensor, experts_nk: Tensor) -> Tensor:
        """The weighted sum of each token's experts, [tokens, hidden]."""
        tokens, chosen = experts_nk.shape
        order = experts_nk.flatten().argsort(stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        ends = tokens_of(experts_nk, len(self.down_proj)).cumsum(0).to(torch.int32)
        rows = _Gather.apply(x_nd, order, back, chosen)
        gate, up = _per_expert(rows, self.gate_up_proj, ends).chunk(2, -1)
        rows = _per_expert(F.silu(gate) * up, self.down_proj, ends)
        out_nkd = _Gather.apply(rows, back, order, 1).view(tokens, chosen, -1)
        return (weights_nk.to(rows.dtype)[:, None] @ out_nkd)[:, 0]


def tokens_of(experts_nk: Tensor, experts: int) -> Tensor:
    """How often each expert was chosen, int64 [experts]; unlike bincount it asks no GPU to wait."""
    chosen = experts_nk.flatten()
    return chosen.new_zeros(experts).scatter_add_(0, chosen, torch.ones_like(chosen))


def _per_expert(rows_nd: Tensor, weight_eod: Tensor, ends_e: Tensor) -> Tensor:
    """Rows sorted by expert, times their expert's matrix; expert e's rows end at `ends_e[e]`."""
    device = rows_nd.device.type
    if torch.is_autocast_enabled(device):  # which does not know the grouped product
        half = torch.get_autocast_dtype(device)
        rows_nd, weight_eod = rows_nd.to(half), weight_eod.to(half)
    widths = rows_nd.shape[1], weight_eod.shape[1]
    aligned = all(width * rows_nd.element_size() % 16 == 0 for width in widths)
    # The grouped product runs in three types; torch.compile knows its shape in one of them only.
    grouped = (torch.float32, torch.bfloat16, torch.float16)
    if aligned and rows_nd.dtype in (grouped[1:2] if torch.compiler.is_compiling() else grouped):
        return F.grouped_mm(rows_nd, weight_eod.mT, offs=ends_e)
    # What it does not take: float64 and rows of odd width.
    sizes = ends_e.diff(prepend=ends_e.new_zeros(1)).tolist()
    pairs = zip(rows_nd.split(sizes), weight_eod.unbind(0), strict=True)
    return torch.cat([F.linear(rows, weight) for rows, weight in pairs])


class _Gather(torch.autograd.Function):
    """(x_nd, order, back, copies) -> rows of x, each `copies` times, in this order.

    `back` is the inverse permutation: with it the gradient is a gather too, whose sums, unlike
    those of torch's scattered adds on a GPU, come out the same every time.
    """

    @staticmethod
    def forward(ctx: Any, x_nd: Tensor, order: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x_nd.index_select(0, order // copies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        rows = upstream.index_select(0, back)
        return rows.unflatten(0, (-1, ctx.copies)).sum(1), None, None, None


class MixtureOfExperts(nn.Module):
    """A layer's feed-forward part: a few of many experts for each token, and the shared ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = (config.n_shared_experts or 0) * config.moe_intermediate_size
        self.shared_experts = SwiGLU(config.hidden_size, shared) if shared else None

    def forward(self, x_btd: Tensor) -> Tensor:
        x_nd = x_btd.flatten(0, -2)
        out = self.experts(x_nd, *self.gate(x_nd)).view_as(x_btd)
        return out if self.shared_experts is None else out + self.shared_experts(x_btd)


@contextlib.contextmanager
def uncounted(model: nn.Module) -> Iterator[None]:
    """What runs inside adds nothing to the experts' loads."""
    counting = [m for m in model.modules() if isinstance(m, Router) and m.training]
    for router in counting:
        router.training = False
    try:
        yield
    finally:
        for router in counting:
            router.training = True


@torch.no_grad()
def balance_experts(model: nn.Module, rate: float = BALANCE_RATE) -> float:
    """After each optimizer step: busy experts' biases go down by `rate`, idle ones' up.

    Auxiliary-loss-free balancing (arXiv:2408.15664), over all ranks of a process group. Returns the
    busiest expert's load over the mean (1 is perfect), 0 where the model has no experts. Experts
    with softmax scores are only counted: Qwen3-MoE's layout has no bias.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    if not routers:
        return 0.0
    loads_le = torch.stack([router.load for router in routers])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(loads_le)
    mean_l1 = loads_le.mean(-1, keepdim=True)
    for router, direction_e in zip(routers, (mean_l1 - loads_le).sign(), strict=True):
        if router.config.scoring_func == "sigmoid":
            router.e_score_correction_bias.add_(direction_e, alpha=rate)
        router.load.zero_()
    return float((loads_le / mean_l1.clamp_min(1)).max())
