"""Which piece of which parameter this rank's optimizer holds, at any ZeRO stage.

A checkpoint speaks of parameters by their names in the whole model, so that it can be read at any
other shape. DeepSpeed keeps float32 weights and optimizer states flat: a rank has a range of each
parameter (ZeRO 1 to 3) or all of it (ZeRO 0), of the whole tensor or, under tensor parallelism, of
its own equal slice of it. A `Piece` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stages.tune.engine import shard_optimizer
from stages.tune.muon import is_muon

WEIGHT = "weight"
MOMENTUM = "momentum_buffer"
Split = tuple[int, int, int]
"""(dimension, index, count): the index-th of `count` equal slices of a tensor."""


@dataclass(frozen=True)
class Piece:
    """Elements [start, stop) of a parameter's flattened local tensor, and where they lie.

    `flat` is what the optimizer's state is kept for: the parameter itself at ZeRO 0, else the
    rank's flat float32 weights; the piece begins at `offset` in it and in each state of its shape.
    `kind` limits the piece to one state, or to `WEIGHT`; `written` is the range this rank saves.
    """

    name: str
    shape: tuple[int, ...]
    split: Split | None
    flat: Tensor
    start: int
    stop: int
    offset: int
    kind: str | None = None
    written: tuple[int, int] | None = None

    def view(self, value: Tensor, start: int | None = None, stop: int | None = None) -> Tensor:
        """The elements of `value` (weights or a state, laid out as `flat`) that belong here."""
        first = self.start if start is None else start
        last = self.stop if stop is None else stop
        return value.detach().view(-1)[
            self.offset + first - self.start : self.offset + last - self.start
        ]


@dataclass(frozen=True)
class Place:
    """This rank among those that hold the same weights, and in the tensor-parallel group."""

    replica: int = 0
    replicas: int = 1
    tensor: int = 0
    tensors: int = 1


Shapes = Mapping[str, tuple[int, ...]]


def place_of(engine: Any) -> Place:
    """Where this rank stands in the engine's groups: those that ZeRO divides over, and AutoTP's."""
    from deepspeed.utils import groups

    tensors = max(1, engine.autotp_size())
    return Place(
        replica=dist.get_rank(group=engine.seq_data_parallel_group),
        replicas=dist.get_world_size(group=engine.seq_data_parallel_group),
        tensor=groups.get_tensor_model_parallel_rank() if tensors > 1 else 0,
        tensors=tensors,
    )


def whole_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters, before any engine has cut them."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def pieces(
    engine: Any, shapes: Shapes, place: Place, rename: Callable[[str], str] = str
) -> list[Piece]:
    """What this rank holds. `rename` turns a name in the engine's module into the model's."""
    names = {id(p): rename(name) for name, p in engine.module.named_parameters()}
    zero = engine.zero_optimization_stage()
    kind = _whole if zero == 0 else _sliced if zero < 3 else _parted
    copies = {  # a pipeline's tied weights: the first stage saves them
        names[id(p)] for p in engine.module.parameters() if getattr(p, "ds_pipe_replicated", False)
    }
    found = kind(engine, names, shapes, place)
    return [replace(piece, written=None) if piece.name in copies else piece for piece in found]


def _split(name: str, local: tuple[int, ...], shapes: Shapes, place: Place) -> Split | None:
    """How a local tensor was cut from the whole one: the one dimension that is shorter."""
    whole = shapes[name]
    if local == whole:
        return None
    cut = [d for d, (mine, all_) in enumerate(zip(local, whole, strict=True)) if mine != all_]
    if len(cut) != 1 or local[cut[0]] * place.tensors != whole[cut[0]]:
        raise ValueError(
            f"{name} is {list(local)} here and {list(whole)} in the model: not one of "
            f"{place.tensors} equal slices, which is all a checkpoint can describe"
        )
    return cut[0], place.tensor, place.tensors


def _whole(engine: Any, names: Mapping[int, str], shapes: Shapes, place: Place) -> Iterator[Piece]:
    """ZeRO 0: every replica holds all, and saves an equal share of the elements."""
    parameters = [p for p in engine.module.parameters() if p.requires_grad]
    total = sum(p.numel() for p in parameters)
    low = total * place.replica // place.replicas
    high = total * (place.replica + 1) // place.replicas
    first = 0
    for p in parameters:
        name, size = names[id(p)], p.numel()
        split = _split(name, tuple(p.shape), shapes, place)
        start, stop = max(low - first, 0), min(high - first, size)
        mine = (start, stop) if start < stop and _saves(split, place) else None
        yield Piece(name, shapes[name], split, p, 0, size, 0, written=mine)
        first += size


def _saves(split: Split | None, place: Place) -> bool:
    """Of what the tensor-parallel ranks all have, the first saves it."""
    return split is not None or place.tensor == 0


def _sliced(engine: Any, names: Mapping[int, str], shapes: Shapes, place: Place) -> Iterator[Piece]:
    """ZeRO 1 and 2: a slice of all parameters of a group laid end to end.

    Muon keeps whole matrices' momentum with every rank that has a part of them; the rank that has
    the first element saves it.
    """
    inner = engine.optimizer
    muon = is_muon(shard_optimizer(engine))
    for group, flat in enumerate(inner.single_partition_of_fp32_groups):
        for p in inner.bit16_groups[group]:
            if (mapping := p._hp_mapping) is None:
                continue
            local, held = mapping.lp_fragment_address, mapping.hp_fragment_address
            whole_momentum = muon and getattr(p, "use_muon", False)
            split = _split(names[id(p)], tuple(p.shape), shapes, place)
            span = (local.start, local.start + local.numel)
            yield Piece(
                names[id(p)], shapes[names[id(p)]], split, flat, *span, held.start,
                WEIGHT if whole_momentum else None,
                written=span if _saves(split, place) else None,
            )  # fmt: skip
        offset = 0
        for p in inner.params_in_partition[group] if muon else ():
            if not getattr(p, "use_muon", False):
                break
            name, span = names[id(p)], (0, p.numel())
            split = _split(name, tuple(p.shape), shapes, place)
            first = p._hp_mapping.lp_fragment_address.start == 0 and _saves(split, place)
            yield Piece(
                name, shapes[name], split, flat, *span, offset, MOMENTUM,
                written=span if first else None,
            )  # fmt: skip
            offset += p.numel()


def _parted(engine: Any, names: Mapping[int, str], shapes: Shapes, place: Place) -> Iterator[Piece]:
    """ZeRO 3: an equal part of every parameter, the last one padded."""
    inner = engine.optimizer
    for group, flat in enumerate(inner.fp32_partitioned_groups_flat):
        for p in inner.fp16_groups[group]:
            _, offset, size = inner.grad_position[inner.get_param_id(p)]
            name, local = names[id(p)], tuple(p.ds_shape)
            split = _split(name, local, shapes, place)
            start = place.replica * size
            stop = min(start + size, p.ds_numel)
            if start < stop:
                yield Piece(
                    name, shapes[name], split, flat, start, stop, offset,
                    written=(start, stop) if _saves(split, place) else None,
                )  # fmt: skip


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """What a model keeps besides trained parameters: persistent buffers and frozen weights."""
    trained = {
        name for name, p in module.named_parameters(remove_duplicate=False) if p.requires_grad
    }
    return {name: value for name, value in module.state_dict().items() if name not in trained}


def states_of(
    optimizer: torch.optim.Optimizer, piece: Piece
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The tensors a piece lies in (`WEIGHT` and each state), and the plain numbers beside them."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    if piece.kind in (None, WEIGHT):
        tensors[WEIGHT] = piece.flat
    for kind, value in optimizer.state.get(piece.flat, {}).items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            numbers[kind] = float(value)
        elif piece.kind in (None, kind):
            tensors[kind] = value
    return tensors, numbers
