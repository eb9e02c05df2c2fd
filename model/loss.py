"""Token-weighted cross-entropy and token log-probabilities that never hold all logits.

At a vocabulary of 100 000 the logits of one batch outweigh the model; here they live one chunk of
tokens at a time. `cross_entropy` finishes a chunk's gradients while its logits are at hand (as
Liger Kernel does, arXiv:2410.10989), so nothing is computed twice; `token_logprobs`, whose upstream
gradient is not known yet, computes a chunk again in backward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.layers import product_dtype

IGNORED = -100
"""A label that is not predicted: padding, prompts, the border between documents."""
CHUNK_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Tokens whose logits are held at once: what a CPU's caches like, and what fills a GPU."""
CHUNK_LOGITS = 1 << 23
"""Logits held at once on a CPU: 32 MiB of them, whatever the vocabulary."""
SCALED_ROWS = 8192
"""Rows of a 16-bit gradient that are widened at once."""
RARE = 1e-30
"""A probability below which float32 loses digits of it."""


class _SummedCrossEntropy(torch.autograd.Function):
    """(hidden_nd, head_weight_vd, labels_n) -> summed negative log-likelihood, gradients ready.

    Products are taken in the hidden states' type, whatever the head's; the head's gradient is
    summed over chunks in at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        wide = _accumulator(hidden_nd.dtype)
        total = torch.zeros((), dtype=wide, device=hidden_nd.device)
        grad_hidden = torch.empty_like(hidden_nd) if need_hidden else None
        grad_weight = torch.zeros_like(head_weight_vd, dtype=wide) if need_weight else None
        head = head_weight_vd.to(hidden_nd.dtype)
        for begin in range(0, len(labels_n), chunk_tokens):
            part = slice(begin, begin + chunk_tokens)
            hidden, labels = hidden_nd[part], labels_n[part, None]
            if not (need_hidden or need_weight):
                total += _nll(hidden @ head.T, labels)
                continue
            nll, grad = _nll_and_gradient(hidden @ head.T, labels)
            total += nll
            if grad_hidden is not None:
                torch.mm(grad, head, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, grad.T, hidden)
        if grad_weight is not None:
            grad_weight = grad_weight.to(head_weight_vd.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight = (g if g is None else _scaled(g, upstream) for g in ctx.saved_tensors)
        return hidden, weight, None, None


class _TokenLogprobs(torch.autograd.Function):
    """(hidden_nd, head_weight_vd, labels_n) -> log-probability of each label, [n]."""

    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int
    ) -> Tensor:
        ctx.save_for_backward(hidden_nd, head_weight_vd, labels_n)
        ctx.chunk_tokens = chunk_tokens
        head = head_weight_vd.to(hidden_nd.dtype)
        pieces = [
            -_softmax(hidden @ head.T, labels[:, None])[1][:, 0]
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
        wide = _accumulator(hidden_nd.dtype)
        grad_weight = torch.zeros_like(head_weight_vd, dtype=wide) if need_weight else None
        head = head_weight_vd.to(hidden_nd.dtype)
        for begin in range(0, len(labels_n), ctx.chunk_tokens):
            part = slice(begin, begin + ctx.chunk_tokens)
            hidden, labels = hidden_nd[part], labels_n[part, None]
            upstream = upstream_n[part, None]
            grad = _softmax(hidden @ head.T, labels)[0].mul_(-upstream)
            grad = grad.scatter_add_(1, labels, upstream.to(grad.dtype)).to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, head, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, grad.T, hidden)
        if grad_weight is not None:
            grad_weight = grad_weight.to(head_weight_vd.dtype)
        return grad_hidden, grad_weight, None, None


def cross_entropy(
    hidden_btd: Tensor, head_weight_vd: Tensor, labels_bt: Tensor, chunk_tokens: int | None = None
) -> tuple[Tensor, Tensor]:
    """(summed loss in nats, number of tokens predicted), both scalars.

    Labels are already shifted: `labels_bt[:, t]` is what `hidden_btd[:, t]` predicts, IGNORED where
    nothing is. Sums, not means: divide by the tokens of the whole batch, over all ranks and
    accumulation steps, and every token weighs the same. Under autocast products are taken in its
    type. `chunk_tokens` are at hand at once; unset, CHUNK_TOKENS of the device.
    """
    if not torch.is_grad_enabled():  # an autograd function would not know, and make gradients
        hidden_btd, head_weight_vd = hidden_btd.detach(), head_weight_vd.detach()
    hidden_nd, labels_n, count = _predicted(hidden_btd, labels_bt)
    total = _SummedCrossEntropy.apply(
        hidden_nd.to(product_dtype(hidden_nd)),
        head_weight_vd,
        labels_n,
        _chunk(chunk_tokens, hidden_nd, len(head_weight_vd)),
    )
    return total, count


def token_logprobs(
    hidden_nd: Tensor, head_weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int | None = None
) -> Tensor:
    """Natural log-probability of each label, [n], differentiable once; chunks as above."""
    return _TokenLogprobs.apply(
        hidden_nd.to(product_dtype(hidden_nd)),
        head_weight_vd,
        labels_n,
        _chunk(chunk_tokens, hidden_nd, len(head_weight_vd)),
    )


def _predicted(hidden_btd: Tensor, labels_bt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The positions that predict something, flat, and how many; all of them without a copy where
    they all do. On a GPU always all: to ask which would be to wait for it.
    """
    hidden_nd, labels_n = hidden_btd.flatten(0, -2), labels_bt.flatten()
    predicted_n = labels_n != IGNORED
    count = predicted_n.sum()
    if labels_n.is_cuda or bool(predicted_n.all()):
        return hidden_nd, labels_n, count
    return hidden_nd[predicted_n], labels_n[predicted_n], count


def _nll(logits_nv: Tensor, labels_n1: Tensor) -> Tensor:
    """Summed negative log-likelihood of the labels that are not IGNORED."""
    nll_n1 = _softmax(logits_nv, labels_n1.clamp_min(0))[1]
    return nll_n1.masked_fill(labels_n1 == IGNORED, 0.0).sum()


def _nll_and_gradient(logits_nv: Tensor, labels_n1: Tensor) -> tuple[Tensor, Tensor]:
    """(summed negative log-likelihood in at least float32, its gradient in the logits' type)."""
    if logits_nv.is_cuda and not torch.compiler.is_compiling():
        for tensor in (logits_nv, labels_n1):  # the last chunk is shorter: one kernel for any
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return _fused()(logits_nv, labels_n1)
    # on a CPU all labels are predicted
    grad, nll_n1 = _softmax(logits_nv, labels_n1)
    grad.scatter_add_(1, labels_n1, torch.full_like(labels_n1, -1, dtype=grad.dtype))
    return nll_n1.sum(), grad.to(logits_nv.dtype)


def _to_be_fused(logits_nv: Tensor, labels_n1: Tensor) -> tuple[Tensor, Tensor]:
    """The same, where a label may be IGNORED."""
    logprobs = torch.log_softmax(logits_nv, -1, dtype=_accumulator(logits_nv.dtype))
    columns = torch.arange(logits_nv.shape[1], device=logits_nv.device)
    ignored = labels_n1 == IGNORED
    grad = logprobs.exp() - (columns == labels_n1).to(logprobs.dtype)
    nll_n1 = -logprobs.gather(1, labels_n1.clamp_min(0))
    nll = nll_n1.masked_fill(ignored, 0.0).sum()
    return nll, grad.masked_fill(ignored, 0.0).to(logits_nv.dtype)


@functools.cache
def _fused() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One kernel that reads and writes half-precision logits only."""
    # Thousands of rows keep a GPU busy: a row cut in pieces would only be read more often.
    return torch.compile(_to_be_fused, options={"split_reductions": False})


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Their product, of the gradient's type; 16 bits would round the factor for all numbers alike.

    Some rows at a time, so that no wide copy of all is made.
    """
    if gradient.dtype == factor.dtype:
        return gradient * factor
    out = torch.empty_like(gradient)
    for rows, scaled in zip(gradient.split(SCALED_ROWS), out.split(SCALED_ROWS), strict=True):
        scaled.copy_(rows.to(factor.dtype) * factor)
    return out


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, where the total may be of a wider type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


def _softmax(logits_nv: Tensor, labels_n1: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, and the labels' negative log-likelihoods [n, 1]; both at least float32.

    A CPU takes a third of log_softmax's time for a softmax. A label's logarithm of it is as exact,
    unless its probability underflows.
    """
    dtype = _accumulator(logits_nv.dtype)
    if logits_nv.is_cuda:  # where to ask for an underflow would be to wait for the device
        logprobs = torch.log_softmax(logits_nv, -1, dtype=dtype)
        return logprobs.exp(), -logprobs.gather(1, labels_n1)
    probabilities = torch.softmax(logits_nv, -1, dtype=dtype)
    chosen_n1 = probabilities.gather(1, labels_n1)
    nll_n1 = -chosen_n1.log()
    rare_n = (chosen_n1 < RARE)[:, 0]
    if bool(rare_n.any()):
        exact = torch.log_softmax(logits_nv[rare_n], -1, dtype=dtype)
        nll_n1[rare_n] = -exact.gather(1, labels_n1[rare_n])
    return probabilities, nll_n1


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _chunk(chunk_tokens: int | None, hidden: Tensor, vocabulary: int) -> int:
    if chunk_tokens is not None:
        return chunk_tokens
    tokens = CHUNK_TOKENS.get(hidden.device.type, 1024)
    if hidden.device.type == "cpu":
        tokens = max(64, min(tokens, CHUNK_LOGITS // vocabulary))
    return tokens
