"""A run's training set and held-out sets, from what the driver puts into the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stages.pretrain import Config
from stages.text.mixture import Deal, Mixture
from stages.text.token_shards import TokenBatch, TokenShards


class TrainingSet:
    """One source or a mixture, with the sources' names; `sources` may be asked of any batch."""

    def __init__(self, config: Config, job: dict[str, Any]) -> None:
        folders = named(job["tokens"])
        self.names = list(folders)
        shards = [TokenShards(Path(folder)) for folder in folders.values()]
        self._rows = config.rows
        self._mixture: Mixture | None = None
        self._one = shards[0]
        if len(shards) > 1:
            deals = [
                Deal(step * config.rows, shares) for step, shares in config.shares(len(shards))
            ]
            self._mixture = Mixture(shards, deals)

    def batch(
        self, step: int, rows: int, length: int, seed: int, rank: int = 0, world: int = 1
    ) -> TokenBatch:
        """As `TokenShards.batch`."""
        return (self._mixture or self._one).batch(step, rows, length, seed, rank, world)

    def row_sources(self, step: int, seed: int, rank: int, world: int) -> np.ndarray:
        """The number of each row's source, for this rank's rows of a batch."""
        if self._mixture is None:
            count = (rank + 1) * self._rows // world - rank * self._rows // world
            return np.zeros(count, dtype=np.int64)
        return self._mixture.row_sources(step, self._rows, seed, rank, world)


def heldout_sets(job: dict[str, Any]) -> dict[str, TokenShards]:
    """Source name -> its held-out tokens."""
    return {name: TokenShards(Path(folder)) for name, folder in named(job["heldout"]).items()}


def named(folders: str | dict[str, str]) -> dict[str, str]:
    """Source name -> folder; a single folder needs no name."""
    return {"tokens": folders} if isinstance(folders, str) else folders
