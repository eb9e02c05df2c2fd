"""Evaluation in the loop: held-out loss by source, and when a run has stopped learning."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np

from stages.pretrain import Config, EarlyStop
from stages.pretrain.data import HeldoutText
from stages.text.token_shards import IGNORED_LABEL, TokenBatch
from stages.tune.decoder import Rows
from stages.tune.mesh import Mesh, sum_over_ranks
from stages.tune.passes import Passes

HELDOUT = "heldout_loss"
MOST_NATS = math.log(sys.float_info.max)


class Run(Protocol):
    """What evaluation needs of a run."""

    config: Config
    mesh: Mesh
    passes: Passes

    def tensors(self, batch: TokenBatch) -> Rows: ...

    def beat(self, doing: str, *, shape: Hashable = None) -> None: ...


def heldout_losses(run: Run, sources: Mapping[str, HeldoutText]) -> dict[str, float]:
    """Mean nats per held-out token: of all sources together, and of each where there are several.

    Keys are `heldout_loss`, `heldout_perplexity`, and both with `/SOURCE`. Sources share the
    config's `heldout_tokens`.
    """
    sums = {
        name: _summed_loss(run, text, run.config.heldout_tokens // len(sources))
        for name, text in sources.items()
    }
    nats, predicted = (sum(column) for column in zip(*sums.values(), strict=True))
    found = {HELDOUT: nats / predicted, "heldout_perplexity": perplexity(nats / predicted)}
    if len(sources) > 1:
        for name, (part, count) in sums.items():
            found[f"{HELDOUT}/{name}"] = part / count
            found[f"heldout_perplexity/{name}"] = perplexity(part / count)
    return found


def perplexity(nats: float) -> float:
    """exp of a mean loss; infinite where a float64 cannot hold it."""
    return math.exp(nats) if nats < MOST_NATS else math.inf


def loss_by_size(losses: Mapping[str, float], tokens: Mapping[str, int]) -> float:
    """Mean nats per token of sources that were measured alike, each counted by its held-out tokens:
    what a run without a mixture would be measured by.
    """
    if len(tokens) == 1:
        return losses[HELDOUT]
    total = sum(losses[f"{HELDOUT}/{name}"] * count for name, count in tokens.items())
    return total / sum(tokens.values())


def _summed_loss(run: Run, text: HeldoutText, tokens: int) -> tuple[float, float]:
    """(nats, predicted tokens) of some held-out windows, shared out among the data groups.

    All take as many passes (ZeRO 3 gathers weights in them); one without windows left predicts
    nothing in its last.
    """
    length, mesh = run.config.sequence_length, run.mesh
    windows = min(text.windows(length), max(1, tokens // length))
    count = min(run.config.parallel.rows, windows)
    loss, predicted = 0.0, 0.0
    for begin in range(0, windows, mesh.data * count):
        first = begin + mesh.data_rank * count
        batch = text.read([min(first + i, windows - 1) for i in range(count)], length)
        batch.labels[max(0, windows - first) :] = IGNORED_LABEL
        run.beat("measuring the held-out loss", shape=(count, length))
        rows = run.tensors(batch)
        loss += run.passes.loss(rows)
        predicted += run.passes.predicted(rows)
    return sum_over_ranks(loss), sum_over_ranks(predicted)


def losses_by_source(
    run: Run, batch: TokenBatch, row_sources: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """`loss/SOURCE` of a training batch's rows on all ranks, by one more forward pass for each
    source; by their tokens they add up to the batch's loss. A source without rows is left out.
    """
    size = run.config.parallel.rows
    share = -(-run.config.rows // run.mesh.data)  # of the rank with most rows: all pass as often
    found = {}
    for number, name in enumerate(names):
        nats, predicted = 0.0, 0.0
        for begin in range(0, share, size):
            part = _rows_of(batch, row_sources == number, begin, begin + size)
            run.beat("measuring the loss by source", shape=part.input_ids.shape)
            rows = run.tensors(part)
            nats += run.passes.loss(rows)
            predicted += run.passes.predicted(rows)
        nats, predicted = sum_over_ranks(nats), sum_over_ranks(predicted)
        if predicted:
            found[f"loss/{name}"] = nats / predicted
    return found


def _rows_of(batch: TokenBatch, wanted: np.ndarray, begin: int, end: int) -> TokenBatch:
    """Some rows of a batch, of which only the wanted are predicted; without any, its first row."""
    if begin >= len(batch.labels):
        begin, end, wanted = 0, 1, np.zeros(len(batch.labels), dtype=bool)
    labels = batch.labels[begin:end].copy()
    labels[~wanted[begin:end]] = IGNORED_LABEL
    return TokenBatch(batch.input_ids[begin:end], labels, batch.document_ids[begin:end])


class Stopping:
    """Ends a run whose held-out loss no longer falls; `losses`, one an evaluation, are kept in
    checkpoints, so that a run which resumes or goes back stops where it would have.
    """

    def __init__(self, rule: EarlyStop | None, losses: Sequence[float] = ()) -> None:
        self.rule = rule
        self.losses = list(losses)

    def saw(self, steps: int, loss: float) -> None:
        """Take note of an evaluation after so many steps, if it is one of the rule's (there may be
        others between); one that is not finite is worse than any.
        """
        if self.rule is not None and steps % self.rule.every == 0:
            self.losses.append(loss if math.isfinite(loss) else math.inf)

    @property
    def due(self) -> bool:
        """Whether the last `patience` evaluations were all no better than the best before: none
        fell below it, by `min_improvement` or more.
        """
        if self.rule is None or len(self.losses) <= self.rule.patience:
            return False
        patience = self.rule.patience
        best, recent = min(self.losses[:-patience]), min(self.losses[-patience:])
        better = recent < best and recent <= best - self.rule.min_improvement
        return not better
