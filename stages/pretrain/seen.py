"""What all ranks see alike of one step, so that all decide alike what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Seen:
    """One step as all ranks see it: mean loss, that of each rank with tokens, each rank's seconds
    of work for an equal share of the rows, the FLOPs of all rows, and the ranks that were told to
    leave.
    """

    loss: float
    by_rank: dict[int, float]
    work_s: list[float]
    flops: float
    leaving: list[int]

    @classmethod
    def by_all(
        cls,
        loss_sum: float,
        predicted: float,
        work_s: float,
        flops: float,
        leaves: bool,
        device: torch.device,
    ) -> Seen:
        """Gather every rank's summed loss, predicted tokens, seconds, share of the FLOPs, and
        whether it leaves. Called by all ranks alike.
        """
        own = torch.tensor([loss_sum, predicted, work_s, flops, leaves], dtype=torch.float64)
        own = own.to(device)
        all_ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(all_ranks, own)
        losses, counts, seconds, work, leaving = (
            list(column) for column in zip(*torch.stack(all_ranks).tolist(), strict=True)
        )
        return cls(
            sum(losses) / sum(counts),
            {rank: losses[rank] / n for rank, n in enumerate(counts) if n},
            seconds,
            sum(work),
            [rank for rank, leaves in enumerate(leaving) if leaves],
        )
