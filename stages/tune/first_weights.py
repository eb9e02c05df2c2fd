"""What a model trains from before there is a checkpoint: drawn weights, or a Hugging Face folder's.

Read as a checkpoint is, so that a rank makes or reads no more than it holds at any parallel shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from model import pretrained
from model.config import ModelConfig
from model.initial import draw_seed, initial_rows
from model.weight_files import WeightFiles, shapes_of
from stages.tune.fragments import Split

Rows = Callable[[str, int, int], Tensor]
"""(name, first, last) -> rows [first, last) of a parameter, on the CPU."""


class FirstWeights:
    """Weights without any optimizer's state, by parameter."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], rows: Rows) -> None:
        self.shapes, self._rows = shapes, rows

    @classmethod
    def drawn(cls, config: ModelConfig) -> FirstWeights:
        """Those of a `Transformer(config)` made here and now: torch's global seed decides."""
        seed = draw_seed()
        shapes = shapes_of(config)

        def rows(name: str, first: int, last: int) -> Tensor:
            return initial_rows(name, shapes[name], config, seed, first, last)

        return cls(shapes, rows)

    @classmethod
    def of_folder(cls, folder: str | Path) -> FirstWeights:
        """A Hugging Face folder's; one that is broken is a ValueError."""
        config = pretrained.read_config(folder)
        files = WeightFiles(folder, config, compare_head=False)  # the driver has
        return cls(files.shapes, files.rows)

    def kinds(self, name: str) -> list[str]:
        """The optimizer's states that are there to be read: none."""
        return []

    def numbers(self, name: str) -> Mapping[str, float]:
        """The optimizer's plain numbers: none."""
        return {}

    def whole(self, name: str, kind: str) -> Tensor:
        """All of a parameter."""
        return self._rows(name, 0, self.shapes[name][0])

    def read(self, name: str, kind: str, split: Split | None, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a parameter's flattened slice."""
        dimension, index, count = split or (0, 0, 1)
        shape = list(self.shapes[name])
        shape[dimension] //= count
        width = math.prod(shape[1:])
        first, last = start // width, -(-stop // width)
        above = index * shape[0] if dimension == 0 else 0
        rows = self._rows(name, above + first, above + last)
        if dimension:
            rows = rows.chunk(count, dimension)[index]
        return rows.reshape(-1)[start - first * width : stop - first * width]
