"""Where a rank stands in the parallel shape: the rows it reads, the part of the model it has.

The order of ranks is DeepSpeed's: neighbours form a tensor or a sequence group; the stages of a
pipeline lie `data` ranks apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from stages.tune.parallel import Parallel


@dataclass(frozen=True)
class Mesh:
    """A rank's coordinates. `data` groups read different rows; the ranks of one read the same."""

    rank: int
    world: int
    data: int
    data_rank: int
    tensor: int = 1
    tensor_rank: int = 0
    pipeline: int = 1
    stage: int = 0
    sequence: int = 1
    sequence_rank: int = 0

    @classmethod
    def of(cls, parallel: Parallel) -> Mesh:
        """This process's place in the running process group."""
        rank, world = dist.get_rank(), dist.get_world_size()
        data = world // parallel.model_ranks
        if parallel.pipeline > 1:
            stage, data_rank = divmod(rank, data)
            return cls(rank, world, data, data_rank, pipeline=parallel.pipeline, stage=stage)
        data_rank, inner = divmod(rank, parallel.model_ranks)
        if parallel.tensor > 1:
            return cls(rank, world, data, data_rank, tensor=parallel.tensor, tensor_rank=inner)
        return cls(rank, world, data, data_rank, sequence=parallel.sequence, sequence_rank=inner)

    @property
    def replica(self) -> int:
        """This rank's index among those that hold the same weights, over which ZeRO divides."""
        return self.data_rank * self.sequence + self.sequence_rank

    @property
    def replicas(self) -> int:
        """How many ranks hold the same weights."""
        return self.data * self.sequence

    @property
    def is_last_stage(self) -> bool:
        """Whether the loss is computed here."""
        return self.stage == self.pipeline - 1


class SumOverRanks:
    """The sum of every rank's value, in float64, on its way while this rank goes on."""

    def __init__(self, value: float) -> None:
        self._total = torch.tensor(value, dtype=torch.float64)
        if dist.get_backend() == "nccl":
            self._total = self._total.cuda()
        self._work = dist.all_reduce(self._total, async_op=True)

    def tensor(self) -> Tensor:
        """The sum, shape (). On a GPU only what uses it waits for it, not the processor."""
        self._work.wait()
        return self._total

    def item(self) -> float:
        return float(self.tensor().item())


def sum_over_ranks(value: float) -> float:
    """The sum of every rank's value, in float64."""
    return SumOverRanks(value).item()
