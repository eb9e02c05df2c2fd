"""A run's training set and held-out text: its tokens, their sources and the order of reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.errors import UserError
from stages.pretrain import Config
from stages.text.data_plan import DataPlan, PhasePlan, Source, source_key
from stages.text.mixture import Mixture
from stages.text.mixture_plan import plan_mixture
from stages.text.token_shards import Place, TokenBatch, TokenShards
from stages.tune.guards import Skip, passed_by

Folders = Mapping[str, Path]
"""The recipe's name of each tokens artifact -> the folder of its shards."""


class TrainingSet:
    """The rows of every step. A mixture that the tokens do not fit is a UserError."""

    def __init__(self, config: Config, folders: Folders, seed: int) -> None:
        self._config, self._seed = config, seed
        self._artifacts = list(folders)
        self._shards = [TokenShards(folder) for folder in folders.values()]
        self.sources = sources_of(config, folders, self._shards)
        self.plan = self._plan(config)

    def _plan(self, config: Config) -> DataPlan:
        length, rows, seed = config.sequence_length, config.rows, self._seed
        if config.mixture is None and len(self._shards) == 1:
            self._shards[0].windows(length)
            return DataPlan(tuple(self.sources), length, rows, seed, (PhasePlan(0, (1,)),))
        return plan_mixture(
            config.mixture or Mixture(max_epochs=math.inf), self._artifacts, self.sources,
            length=length, rows=rows, steps=config.steps, seed=seed,
            decay_start=config.decay_start,
        )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """What the sources are called."""
        return [source.name for source in self.sources]

    def begins_a_phase(self, step: int) -> bool:
        """Whether another phase of the mixture begins with a step."""
        return any(step == phase.begin for phase in self.plan.phases[1:])

    def epochs(self) -> dict[str, float]:
        """Source -> passes over it in the run."""
        return self.plan.epochs(self._config.steps)

    def shares_order(self, step: int, steps: int) -> bool:
        """Whether a run of `steps` steps had, up to `step`, the batches that this one has."""
        if steps == self._config.steps:
            return True
        other = self._plan(self._config.model_copy(update={"steps": steps}))
        return step <= self.plan.agrees_until(other)

    def starts(
        self, step: int, skips: Sequence[Skip] = (), rank: int = 0, world: int = 1
    ) -> list[tuple[int, int]]:
        """(source, where it begins in the source's tokens) of this rank's rows of a step.

        Where data was skipped, each source goes on behind what was read of it.
        """
        rows = self.plan.rows
        passed = self.plan.samples_of(passed_by(step, skips))
        mine = range(rank * rows // world, (rank + 1) * rows // world)
        return [self.plan.start(step, row, passed) for row in mine]

    def batch(
        self, step: int, skips: Sequence[Skip] = (), rank: int = 0, world: int = 1
    ) -> TokenBatch:
        """This rank's contiguous rows of a step: a pure function of its arguments."""
        starts = self.starts(step, skips, rank, world)
        return _joined(
            [
                self._shards[self.sources[source].part].read([start], self.plan.length)
                for source, start in starts
            ]
        )

    def row_sources(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """The number of each row's source, int64 [rows]: the same whatever was skipped."""
        found = [source for source, _ in self.starts(step, (), rank, world)]
        return np.asarray(found, dtype=np.int64)

    def locate(
        self, step: int, row: int, position: int, skips: Sequence[Skip] = ()
    ) -> tuple[int, Place]:
        """(number of the tokens artifact, place in it) of one token of a batch."""
        source, start = self.starts(step, skips)[row]
        part = self.sources[source].part
        return part, self._shards[part].locate(start + position)


@dataclass(frozen=True)
class HeldoutText:
    """What was held out of one source."""

    shards: TokenShards
    source: Source

    def windows(self, length: int) -> int:
        return self.source.windows(length)

    def read(self, numbers: Sequence[int], length: int) -> TokenBatch:
        """Its windows of these numbers, which are spread over the whole, as rows."""
        return self.shards.read([self.source.window(n, length, seed=0) for n in numbers], length)


def heldout_sets(config: Config, folders: Folders) -> dict[str, HeldoutText]:
    """Source name -> its held-out text; a source with less than one sequence of it is left out."""
    shards, length = [TokenShards(folder) for folder in folders.values()], config.sequence_length
    sources = sources_of(config, folders, shards)
    found = {s.name: HeldoutText(shards[s.part], s) for s in sources if s.windows(length)}
    if not found:
        held = ", ".join(f"{source.name} {source.tokens}" for source in sources)
        raise UserError(
            f"no source holds out the {length + 1} tokens of one sequence ({held or 'none at all'})"
            ": give the corpus more text or a larger heldout_fraction, or shorten sequence_length"
        )
    return found


def folders_of(job: str | Mapping[str, str]) -> dict[str, Path]:
    """Name -> folder of the tokens in a job; a single folder needs no name."""
    named = {"tokens": job} if isinstance(job, str) else job
    return {name: Path(folder) for name, folder in named.items()}


def sources_of(config: Config, folders: Folders, shards: Sequence[TokenShards]) -> list[Source]:
    """The sources that the run tells apart: those within the tokens if it has a mixture, else each
    tokens artifact as a whole.
    """
    found = []
    for part, (artifact, held) in enumerate(zip(folders, shards, strict=True)):
        if config.mixture is None:
            key = (part,) if len(shards) > 1 else ()
            found.append(Source(artifact, part, 0, held.tokens, key))
            continue
        for source in held.sources:
            whole = f"{artifact}/{source.name}" if len(shards) > 1 else source.name
            name = whole if source.name else artifact
            found.append(replace(source, name=name, part=part, key=source_key(part, source.name)))
    return found


def _joined(batches: Sequence[TokenBatch]) -> TokenBatch:
    return TokenBatch(
        *(np.concatenate([getattr(batch, name) for batch in batches])
          for name in ("input_ids", "labels", "document_ids"))
    )  # fmt: skip
