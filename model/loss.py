"""Token-weighted cross-entropy and token log-probabilities that never hold all logits.

At a vocabulary of 100 000 the logits of one batch outweigh the model; here they live one chunk of
tokens at a time. `cross_entropy` finishes a chunk's gradients while its logits are at hand (as
Liger Kernel does, arXiv:2410.10989), so nothing is computed twice; `token_logprobs`, whose upstream
gradient is not known yet, computes a chunk again in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""A label that is not predicted: padding, prompts, the border between documents."""
CHUNK_TOKENS, CHUNK_LOGITS = 1024, 1 << 23
"""Tokens, and logits, that are held at once: 32 MiB of them, whatever the vocabulary."""


class _SummedCrossEntropy(torch.autograd.Function):
    """(hidden_nd, head_weight_vd, labels_n) -> summed negative log-likelihood, gradients ready."""

    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=_accumulator(hidden_nd.dtype), device=hidden_nd.device)
        grad_hidden = torch.empty_like(hidden_nd) if need_hidden else None
        grad_weight = torch.zeros_like(head_weight_vd) if need_weight else None
        for begin in range(0, len(labels_n), chunk_tokens):
            part = slice(begin, begin + chunk_tokens)
            hidden, labels = hidden_nd[part], labels_n[part, None]
            logprobs = _log_softmax(hidden, head_weight_vd)
            total -= logprobs.gather(1, labels).sum()
            if need_hidden or need_weight:
                grad = logprobs.exp_()
                grad.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=grad.dtype))
                grad = grad.to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(grad, head_weight_vd, out=grad_hidden[part])
                if grad_weight is not None:
                    grad_weight.addmm_(grad.T, hidden)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight = (g if g is None else g * upstream.to(g.dtype) for g in ctx.saved_tensors)
        return hidden, weight, None, None


class _TokenLogprobs(torch.autograd.Function):
    """(hidden_nd, head_weight_vd, labels_n) -> log-probability of each label, [n]."""

    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int
    ) -> Tensor:
        ctx.save_for_backward(hidden_nd, head_weight_vd, labels_n)
        ctx.chunk_tokens = chunk_tokens
        pieces = [
            _log_softmax(hidden, head_weight_vd).gather(1, labels[:, None])[:, 0]
            for hidden, labels in zip(
                hidden_nd.split(chunk_tokens), labels_n.split(chunk_tokens), strict=True
            )
        ]
        return torch.cat(pieces)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_n: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_nd, head_weight_vd, labels_n = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_nd) if need_hidden else None
        grad_weight = torch.zeros_like(head_weight_vd) if need_weight else None
        for begin in range(0, len(labels_n), ctx.chunk_tokens):
            part = slice(begin, begin + ctx.chunk_tokens)
            hidden, labels = hidden_nd[part], labels_n[part, None]
            upstream = upstream_n[part, None]
            grad = _log_softmax(hidden, head_weight_vd).exp_().mul_(-upstream)
            grad = grad.scatter_add_(1, labels, upstream.to(grad.dtype)).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, head_weight_vd, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden)
        return grad_hidden, grad_weight, None, None


def cross_entropy(
    hidden_btd: Tensor, head_weight_vd: Tensor, labels_bt: Tensor, chunk_tokens: int | None = None
) -> tuple[Tensor, Tensor]:
    """(summed loss in nats, number of tokens predicted), both scalars.

    Labels are already shifted: `labels_bt[:, t]` is what `hidden_btd[:, t]` predicts, IGNORED where
    nothing is. Sums, not means: divide by the tokens of the whole batch, over all ranks and
    accumulation steps, and every token weighs the same.
    """
    hidden_nd, labels_n = _predicted(hidden_btd, labels_bt)
    chunk_tokens = chunk_tokens or _chunk(len(head_weight_vd))
    total = _SummedCrossEntropy.apply(hidden_nd, head_weight_vd, labels_n, chunk_tokens)
    return total, torch.tensor(len(labels_n), device=labels_bt.device)


def token_logprobs(
    hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int | None = None
) -> Tensor:
    """Natural log-probability of each label, [n], differentiable once."""
    chunk_tokens = chunk_tokens or _chunk(len(head_weight_vd))
    return _TokenLogprobs.apply(hidden_nd, head_weight_vd, labels_n, chunk_tokens)


def _predicted(hidden_btd: Tensor, labels_bt: Tensor) -> tuple[Tensor, Tensor]:
    """The positions that predict something, flat; all of them without a copy where they all do."""
    hidden_nd, labels_n = hidden_btd.flatten(0, -2), labels_bt.flatten()
    predicted_n = labels_n != IGNORED
    if bool(predicted_n.all()):
        return hidden_nd, labels_n
    return hidden_nd[predicted_n], labels_n[predicted_n]


def _log_softmax(hidden_nd: Tensor, head_weight_vd: Tensor) -> Tensor:
    """log softmax of a chunk's logits, at least float32."""
    logits = hidden_nd @ head_weight_vd.T
    return torch.log_softmax(logits, -1, dtype=_accumulator(logits.dtype))


def _chunk(vocabulary: int) -> int:
    return max(64, min(CHUNK_TOKENS, CHUNK_LOGITS // vocabulary))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
