"""Taking up a checkpoint: all ranks agree on one, check its shards, load what each one holds.

A run without one loads its first weights in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.errors import UserError
from cluster.folder import Folder
from stages.tune.checkpoint import (
    Checkpoint,
    check_model,
    damaged,
    find_checkpoints,
    slice_of,
)
from stages.tune.engine import shard_optimizer
from stages.tune.first_weights import FirstWeights
from stages.tune.fragments import WEIGHT, Piece, buffers

Source = Checkpoint | FirstWeights
Alive = Callable[[], None]


def agree(
    root: Folder,
    fits: Callable[[Checkpoint], bool],
    model: Mapping[str, Any],
    alive: Alive = lambda: None,
) -> Checkpoint | None:
    """The newest checkpoint that `fits`, as rank 0 finds it, its shards checked by all ranks
    together. Every rank calls this; each calls `alive` as it gets on.

    Raises UserError on every rank for one of another model or with a damaged shard, OSError where
    the store does not answer.
    """
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            all_found = find_checkpoints(root)
            chosen = next(filter(fits, reversed(all_found)), None)
            if chosen is not None:
                check_model(chosen, model)
                found[0] = (chosen.name, chosen.step, dict(chosen.state))
        except (UserError, OSError, ValueError) as error:
            found[1] = (OSError if isinstance(error, OSError) else UserError)(str(error))
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise found[1]
    if found[0] is None:
        return None
    name, step, state = found[0]
    checkpoint = Checkpoint(root / name, name, step, state)
    _check_shards(checkpoint, root, alive)
    return checkpoint


def _check_shards(checkpoint: Checkpoint, root: Folder, alive: Alive) -> None:
    """Every shard's hash, each by one rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    fault = None
    for file in checkpoint.files[rank::world]:
        alive()
        fault = fault or next(checkpoint.faults([file]), None)
    alive()
    faults: list[str | None] = [None] * world
    dist.all_gather_object(faults, fault)
    said = [fault for fault in faults if fault is not None]
    if said:
        raise damaged(checkpoint, said[0], find_checkpoints(root))


def load(
    checkpoint: Source,
    engine: Any,
    held: Sequence[Piece],
    rename: Callable[[str], str] = str,
    alive: Alive = lambda: None,
) -> None:
    """Give the engine a checkpoint's weights and this rank's part of the optimizer's states, in
    place, so it also serves to go back.
    """
    optimizer = shard_optimizer(engine)
    splits = {piece.name: piece.split for piece in held}
    filled = {id(piece.flat) for piece in held}  # ZeRO 0 keeps a parameter's state for itself
    with torch.no_grad():
        for piece in held:
            alive()
            _load_piece(checkpoint, optimizer, piece, held)
        for name, parameter in engine.module.named_parameters():
            if not hasattr(parameter, "ds_tensor") and id(parameter) not in filled:
                alive()
                whole = checkpoint.whole(rename(name), WEIGHT)
                split = splits.get(rename(name)) or _split_of(parameter, whole, splits)
                parameter.copy_(slice_of(whole, split))
        if engine.zero_optimization_stage() == 3:
            _spread(engine)
    own = {name: checkpoint.whole(rename(name), WEIGHT) for name in buffers(engine.module)}
    engine.module.load_state_dict(own, strict=False)


def _load_piece(
    checkpoint: Source,
    optimizer: torch.optim.Optimizer,
    piece: Piece,
    held: Sequence[Piece],
) -> None:
    state = optimizer.state[piece.flat]
    kinds = checkpoint.kinds(piece.name)
    if piece.kind in (None, WEIGHT):
        _fill(piece, piece.flat, checkpoint, WEIGHT)
    for kind in kinds if piece.kind is None else set(kinds) & {piece.kind}:
        if kind not in state:
            state[kind] = _room(piece, held) if piece.kind else torch.zeros_like(piece.flat)
        _fill(piece, state[kind], checkpoint, kind)
    for kind, number in checkpoint.numbers(piece.name).items():
        if isinstance(optimizer, torch.optim.AdamW):
            state[kind] = torch.tensor(number, device=_number_device(optimizer, piece))
        else:
            state[kind] = int(number)


def _fill(piece: Piece, target: Tensor, checkpoint: Source, kind: str) -> None:
    values = checkpoint.read(piece.name, kind, piece.split, piece.start, piece.stop)
    piece.view(target).copy_(values)


def _room(piece: Piece, held: Sequence[Piece]) -> Tensor:
    """An empty state for all the pieces that share one and are not laid out as the weights."""
    same = [p for p in held if p.flat is piece.flat and p.kind == piece.kind]
    return piece.flat.new_zeros(sum(p.stop - p.start for p in same))


def _number_device(optimizer: torch.optim.Optimizer, piece: Piece) -> torch.device:
    """Fused and capturable optimizers count steps on the accelerator, others on the CPU."""
    on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    return piece.flat.device if on_device else torch.device("cpu")


def _split_of(parameter: Tensor, whole: Tensor, splits: Mapping[str, Any]) -> Any:
    """How a parameter is cut that this rank's optimizer holds no piece of."""
    cut = [d for d in range(whole.ndim) if parameter.shape[d] != whole.shape[d]]
    if not cut:
        return None
    known = next(split for split in splits.values() if split is not None)
    return cut[0], known[1], known[2]


def _spread(engine: Any) -> None:
    """ZeRO 3: the loaded float32 parts become the parts that forward and backward gather."""
    inner = engine.optimizer
    for group, flat in enumerate(inner.fp32_partitioned_groups_flat):
        if inner.fp16_partitioned_groups_flat[group] is not None:
            inner.fp16_partitioned_groups_flat[group].data.copy_(flat.data)
            inner._unflatten_partitioned_parameters(group)
    if inner.persistent_parameters:
        inner.persistent_parameters[0].all_gather(inner.persistent_parameters)
