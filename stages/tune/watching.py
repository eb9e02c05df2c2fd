"""When a rank of a training counts as stuck or slow, as a recipe writes it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from cluster.board import BOARD
from cluster.watch import Watch
from stages.stage import StageConfig


class Watching(StageConfig):
    """When a rank counts as stuck or slow. A step may take any time: a run whose longest pause was
    p, first times left out, is called hanging only after three times p.
    """

    hang_s: float = Field(default=25.0, gt=0, le=3600)
    """Silence of a rank that ends the worker group with every rank's stack."""
    start_s: float = Field(default=600.0, gt=0, le=3600)
    """The same for what a rank does for the first time (it may compile), and for loading."""
    slow_ratio: float = Field(default=1.5, gt=1)
    """A rank is named when its own work takes this many times the others', three steps long."""

    def begin(self, scratch: Path) -> Watch:
        """This rank's watch in a running process group; notes go where the driver looks."""
        import torch.distributed as dist

        folder = Path(os.environ.get(BOARD, scratch / "watch"))
        return Watch(folder, dist.get_rank(), dist.get_world_size(), self.hang_s, self.start_s)
