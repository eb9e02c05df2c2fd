"""Sequence parallelism (Ulysses, arXiv:2309.14509): positions are divided, heads while they attend.

Each rank computes its slice of every row. Around attention two all-to-all exchanges turn "my
positions of all heads" into "all positions of my heads" and back; the exchange is DeepSpeed's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from model.attention import attend
from stages.tune.decoder import TrainedDecoder
from stages.tune.mesh import Mesh


def divide_sequences(model: TrainedDecoder, mesh: Mesh) -> Any:
    """Have the decoder work on this rank's positions; returns DeepSpeed's groups for the engine."""
    from deepspeed.runtime.sequence_parallel import parallel_state_sp

    parallel_state_sp.initialize_sequence_parallel(mesh.sequence)
    group = parallel_state_sp.get_sequence_parallel_group()
    for layer in model.model.layers:
        attention: Any = layer.self_attn
        attention.attend = _Exchange(group)
    model.sequence_rank = mesh.sequence_rank
    return parallel_state_sp


class _Exchange:
    """`model.attention.attend` over all positions, of this rank's heads."""

    def __init__(self, group: Any) -> None:
        from deepspeed.sequence.layer import DistributedAttention

        self.distributed = DistributedAttention(_attend_whole, group, scatter_idx=2, gather_idx=1)

    def __call__(
        self, queries_bhtd: Tensor, keys_bktd: Tensor, values_bktd: Tensor, mask: Tensor | None
    ) -> Tensor:
        parts = [x.transpose(1, 2) for x in (queries_bhtd, keys_bktd, values_bktd)]
        return self.distributed(*parts, 0, None, mask).flatten(2)


def _attend_whole(
    queries_bthd: Tensor, keys_btkd: Tensor, values_btkd: Tensor, mask: Tensor | None
) -> Tensor:
    """[rows, length, this rank's heads, head_dim], as the exchange takes it back."""
    queries, keys, values = (x.transpose(1, 2) for x in (queries_bthd, keys_btkd, values_btkd))
    out = attend(queries, keys, values, mask)
    return out.unflatten(2, queries_bthd.shape[2:])
