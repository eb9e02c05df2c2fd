"""Forward and backward passes of one step, in micro-batches, at any parallel shape.

The loss is the mean over every predicted token of the step, whatever rank or micro-batch holds it.
DeepSpeed divides gradients by accumulation and by data groups, so both are multiplied in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from model.loss import IGNORED
from model.moe import uncounted
from stages.tune.decoder import Rows
from stages.tune.mesh import Mesh, SumOverRanks

Working = Callable[[Hashable], AbstractContextManager[Any]]
"""Entered around what a rank does by itself, given the shape of the rows that it does it to."""


class Passes(Protocol):
    """What a training loop asks of an engine: this rank's parts of sums over ranks.

    Losses are summed nats. Ranks that compute the same thing have equal parts of it.
    """

    def predicted(self, rows: Rows) -> float:
        """This rank's part of the number of tokens predicted in a step's rows."""
        ...

    def gradients(self, rows: Rows, predicted: SumOverRanks, working: Working = ...) -> float:
        """Leave the gradients of a step with `predicted` tokens over all ranks in the engine; this
        rank's part of the loss. `working` is entered around what a rank does by itself.
        """
        ...

    def loss(self, rows: Rows) -> float:
        """This rank's part of some rows' summed loss; every rank calls it as often."""
        ...


def passes_of(engine: Any, mesh: Mesh, accumulation: int) -> Passes:
    """The passes of an engine from `start_engine`."""
    kind = _PipelinePasses if mesh.pipeline > 1 else _PlainPasses
    return kind(engine, mesh, accumulation)


class _PlainPasses:
    """Every rank has all layers: whole ones, or its part of each."""

    def __init__(self, engine: Any, mesh: Mesh, accumulation: int) -> None:
        self.engine, self.mesh, self.accumulation = engine, mesh, accumulation
        self.divisor = mesh.data * accumulation

    def predicted(self, rows: Rows) -> float:
        _, labels, _ = self._mine(rows)
        return int((labels != IGNORED).sum()) / self.mesh.tensor

    def gradients(
        self, rows: Rows, predicted: SumOverRanks, working: Working = contextlib.nullcontext
    ) -> float:
        nats, scale = torch.zeros((), dtype=torch.float64, device=rows[0].device), None
        for piece in _pieces(rows, self.accumulation):
            empty = not len(piece[0])  # all ranks take as many passes
            counting = uncounted(self.engine.module) if empty else contextlib.nullcontext()
            with counting:
                with working(rows[0].shape if empty else piece[0].shape):
                    loss_sum = self._forward(_unpredicted(rows) if empty else piece, self.engine)
                if scale is None:  # asked for no sooner: the ranks' count comes meanwhile
                    scale = (self.divisor / predicted.tensor()).to(loss_sum.dtype)
                self.engine.backward(loss_sum * scale)
            if not self.engine.is_gradient_accumulation_boundary():
                self.engine.step()  # counts the micro-batch; the guard takes the step itself
            nats += loss_sum.detach()
        return nats.item() / self.mesh.tensor

    def loss(self, rows: Rows) -> float:
        with torch.no_grad():
            return self._forward(rows, self.engine.module).item() / self.mesh.tensor

    def _forward(self, rows: Rows, module: Any) -> Tensor:
        input_ids, labels, document_ids = self._mine(rows)
        loss_sum: Tensor = module(input_ids, document_ids, labels_bt=labels)
        return loss_sum

    def _mine(self, rows: Rows) -> Rows:
        """This rank's positions; documents of all, for the mask."""
        input_ids, labels, document_ids = rows
        if self.mesh.sequence == 1:
            return rows
        length = input_ids.shape[1] // self.mesh.sequence
        part = slice(self.mesh.sequence_rank * length, (self.mesh.sequence_rank + 1) * length)
        return input_ids[:, part], labels[:, part], document_ids


class _PipelinePasses:
    """Every rank has some layers; DeepSpeed runs the schedule (1F1B, arXiv:2104.04473)."""

    def __init__(self, engine: Any, mesh: Mesh, accumulation: int) -> None:
        self.engine, self.mesh, self.accumulation = engine, mesh, accumulation
        from deepspeed.runtime.pipe.engine import TRAIN_BATCH_TIMER

        self.timer = TRAIN_BATCH_TIMER
        self.shape: torch.Size | None = None
        self.working: Working = contextlib.nullcontext
        self.summed = engine.module.loss_fn
        engine.module.forward = self._timed(engine.module.forward)
        engine.module.loss_fn = self._timed(self.summed)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            with self.working(self.shape):
                return function(*inputs)

        return call

    def predicted(self, rows: Rows) -> float:
        return int((rows[1] != IGNORED).sum()) if self.mesh.is_last_stage else 0

    def gradients(
        self, rows: Rows, predicted: SumOverRanks, working: Working = contextlib.nullcontext
    ) -> float:
        loss = self._begin(rows, self.accumulation)
        loss.scale = self.mesh.data * self.accumulation / predicted.item()
        self.working = working
        self.engine.train_batch(_inputs(rows, self.accumulation))
        self.engine.timers(self.timer).reset()  # it would keep two events of every step
        self.working = contextlib.nullcontext
        return float(loss.nats)

    def loss(self, rows: Rows) -> float:
        loss = self._begin(rows, 1)
        loss.scale = 1.0
        batch = _inputs(rows, 1)
        self.engine.eval_batch(batch, bcast_loss=False, num_micro_batches=1)
        return float(loss.nats)

    def _begin(self, rows: Rows, pieces: int) -> Any:
        shape = rows[0][: len(rows[0]) // pieces].shape
        if shape != self.shape:  # stages remember the shape they exchange
            self.engine.reset_activation_shape()
            self.shape = shape
        self.summed.nats = 0.0
        return self.summed


def _pieces(rows: Rows, count: int) -> Iterator[Rows]:
    """Rows in `count` pieces, as equal as they can be."""
    ids, labels, documents = (tensor.tensor_split(count) for tensor in rows)
    yield from zip(ids, labels, documents, strict=True)


def _unpredicted(rows: Rows) -> Rows:
    """The first row, of which nothing is predicted."""
    ids, labels, documents = (tensor[:1] for tensor in rows)
    return ids, torch.full_like(labels, IGNORED), documents


def _inputs(rows: Rows, count: int) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Micro-batches as a pipeline takes them: what enters the first stage, what the last needs."""
    for ids, labels, documents in _pieces(rows, count):
        yield (ids, documents), labels
