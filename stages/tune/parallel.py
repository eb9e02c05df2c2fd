"""The parallel shape of a training run, as a recipe writes it. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.stage import StageConfig


class Parallel(StageConfig):
    """`workers` ranks (a pair: elastic, minimum and maximum), ZeRO stage, tensor parallel degree
    (1: every worker holds whole layers).

    `threads` is torch's intra-op threads in each worker; `rows` is how many sequences one worker
    puts through the model at a time (the batch is split into as many micro-batches as that takes).
    """

    workers: int | tuple[int, int] = 1
    zero: Literal[0, 1, 2] = 0
    tensor: Literal[1] = 1
    threads: int = Field(default=1, ge=1)
    rows: int = Field(default=16, ge=1)
    gpu: bool = False

    @model_validator(mode="after")
    def _check(self) -> Parallel:
        least, most = self.bounds
        if not 1 <= least <= most:
            raise ValueError(
                f"parallel.workers is {self.workers}: give a number from 1, or [least, most]"
            )
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """(least, most) workers."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        return self.workers
