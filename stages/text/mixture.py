"""Several folders of token shards read as one training set, in shares that may change on the way.

A mixture is arithmetic, like the order within a folder: which source the run's sample n comes from,
and which of that source's samples it is, follows from n, the seed and the phases alone. Samples are
dealt in blocks: a block's places are permuted, and each source gets its share of them, so shares
hold in every block and any worker finds any sample without reading the others. A phase (annealing
to better text at the end, say) begins a new deal and goes on where each source had stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cluster.errors import UserError
from stages.text.permutation import permute
from stages.text.token_shards import TokenBatch, TokenShards

BLOCK = 1024
"""Samples in a deal: shares are held to a thousandth."""


@dataclass(frozen=True)
class Deal:
    """From sample `begin` on, sources get these shares (they are normalised)."""

    begin: int
    shares: tuple[float, ...]

    def counts(self) -> list[int]:
        """Places of a block for each source, by largest remainder; they sum to BLOCK."""
        total = sum(self.shares)
        exact = [share / total * BLOCK for share in self.shares]
        counts = [int(part) for part in exact]
        order = sorted(range(len(exact)), key=lambda s: counts[s] - exact[s])
        for source in order[: BLOCK - sum(counts)]:
            counts[source] += 1
        return counts


class Mixture:
    """Batches from several sources; has `TokenShards.batch`'s signature and promises."""

    def __init__(self, sources: Sequence[TokenShards], deals: Sequence[Deal]) -> None:
        for deal in deals:
            if len(deal.shares) != len(sources):
                raise UserError(
                    f"a mixture has {len(deal.shares)} shares for {len(sources)} tokens artifacts: "
                    "give one each, in the same order"
                )
        self.sources = list(sources)
        self.deals = sorted(deals, key=lambda deal: deal.begin)

    def place(self, sample: int, seed: int) -> tuple[int, int]:
        """(source, which of its samples) of one of the run's samples."""
        used = [0] * len(self.sources)
        for deal, following in zip(self.deals, [*self.deals[1:], None], strict=True):
            if following is None or sample < following.begin:
                source, number = _dealt(deal, sample - deal.begin, seed)
                return source, used[source] + number
            for source, count in enumerate(_reached(deal, following.begin - deal.begin)):
                used[source] += count
        raise AssertionError("the last deal has no end")

    def row_sources(
        self, step: int, rows: int, seed: int, rank: int = 0, world: int = 1
    ) -> np.ndarray:
        """The source of each of this rank's rows, int64 [rows]."""
        samples = _samples(step, rows, rank, world)
        return np.asarray([self.place(sample, seed)[0] for sample in samples], dtype=np.int64)

    def batch(
        self, step: int, rows: int, length: int, seed: int, rank: int = 0, world: int = 1
    ) -> TokenBatch:
        """The batch of a step: a pure function of (seed, step, rows, length) and the deals."""
        samples = _samples(step, rows, rank, world)
        shape = (len(samples), length)
        batch = TokenBatch(*(np.empty(shape, dtype=np.int64) for _ in range(3)))
        for row, sample in enumerate(samples):
            source, number = self.place(sample, seed)
            one = self.sources[source].batch(number, 1, length, seed)
            batch.input_ids[row], batch.labels[row] = one.input_ids[0], one.labels[0]
            batch.document_ids[row] = one.document_ids[0]
        return batch


def _samples(step: int, rows: int, rank: int, world: int) -> range:
    """The run's samples that are a rank's contiguous rows of a step."""
    return range(step * rows + rank * rows // world, step * rows + (rank + 1) * rows // world)


def _dealt(deal: Deal, sample: int, seed: int) -> tuple[int, int]:
    """(source, number) of the deal's sample, numbers counted from the deal's begin."""
    block, place = divmod(sample, BLOCK)
    position = permute(place, BLOCK, (seed, deal.begin, block))
    for source, count in enumerate(deal.counts()):
        if position < count:
            return source, block * count + position
        position -= count
    raise AssertionError("counts sum to BLOCK")


@lru_cache(maxsize=64)
def _reached(deal: Deal, samples: int) -> tuple[int, ...]:
    """How far into each source a deal of so many samples reaches.

    A block broken off has left gaps in a source's numbers; the next deal starts behind them.
    """
    blocks = -(-samples // BLOCK)
    return tuple(blocks * count for count in deal.counts())
