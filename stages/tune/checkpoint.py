"""Training checkpoints: safetensors shards of weights, optimizer state and position.

A checkpoint is a folder `step-00000123` of

* `weights.safetensors`: the whole model, float32, written by rank 0;
* `optimizer-00-of-02.safetensors`: what that rank's optimizer holds, as `<group>.<index>.<name>`;
* `state.json`: the step, the shape it was written on, and whatever the loop counts.

It appears in one rename when every rank has written. Nothing in it is a pickle. Resuming on the
same shape continues to the bit; ZeRO 1 and 2 hold flat slices in rank order, so those are joined
and cut again for any other number of workers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.tune.engine import shard_optimizer

WEIGHTS = "weights.safetensors"
STATE = "state.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    state: Mapping[str, Any]

    def weights(self) -> dict[str, Tensor]:
        return load_file(self.folder / WEIGHTS)


def find_checkpoints(root: Path) -> list[Checkpoint]:
    """Every complete checkpoint under `root`, oldest first; not what a kill left half done."""
    found = []
    for path in root.glob(f"step-*/{STATE}"):
        state = json.loads(path.read_text(encoding="utf-8"))
        found.append(Checkpoint(path.parent, int(state["step"]), state))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest(root: Path, fits: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    """The newest checkpoint that `fits` the run to be continued."""
    return next(filter(fits, reversed(find_checkpoints(root))), None)


def discard_after(root: Path, step: int) -> None:
    """Remove checkpoints past `step`: another course of the same run, which this one leaves."""
    for checkpoint in find_checkpoints(root):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.folder)


def save_checkpoint(
    root: Path, step: int, engine: Any, state: Mapping[str, Any], pinned: int | None = None
) -> None:
    """Write one; every rank calls this. `pinned` is a step whose checkpoint is never removed."""
    rank, world = dist.get_rank(), dist.get_world_size()
    final, partial = root / f"step-{step:08d}", root / f"step-{step:08d}.partial"
    if rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    weights = _weights(engine.module)
    if rank == 0:
        save_file(weights, partial / WEIGHTS)
    tensors, scalars = _pack(shard_optimizer(engine))
    save_file(tensors, partial / _shard_name(rank, world))
    if rank == 0:
        layout = {"world": world, "zero": engine.zero_optimization_stage(), "scalars": scalars}
        text = json.dumps({**state, "step": step, "layout": layout})
        (partial / STATE).write_text(text, encoding="utf-8")
    dist.barrier()
    if rank == 0:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        _remove_old(root, pinned)
    dist.barrier()


def load_optimizer(checkpoint: Checkpoint, engine: Any) -> None:
    """Give this rank's optimizer its part of the state, cut anew where the shape is another.

    Raises ValueError where another shape cannot be served: between ZeRO 0 and the others.
    """
    layout = checkpoint.state["layout"]
    rank, world = dist.get_rank(), dist.get_world_size()
    zero = engine.zero_optimization_stage()
    if bool(layout["zero"]) != bool(zero):
        raise ValueError(
            f"{checkpoint.folder} was written at ZeRO {layout['zero']} and this run is at ZeRO "
            f"{zero}: whole and sliced states do not mix; keep to 0, or to 1 and 2"
        )
    optimizer = shard_optimizer(engine)
    muon = zero and any(group.get("use_muon") for group in optimizer.param_groups)
    if muon and layout["world"] != world:
        raise ValueError(
            f"{checkpoint.folder} was written by {layout['world']} workers and this run has "
            f"{world}: DeepSpeed's Muon keeps whole matrices' momentum with each rank, which "
            "cannot be cut anew; keep the number of workers, or use adamw"
        )
    if layout["world"] == world:
        shards = [load_file(checkpoint.folder / _shard_name(rank, world))]
    elif zero == 0:  # every rank holds all of it
        shards = [load_file(checkpoint.folder / _shard_name(0, layout["world"]))]
    else:
        count = layout["world"]
        shards = [load_file(checkpoint.folder / _shard_name(i, count)) for i in range(count)]
    _unpack(optimizer, shards, layout["scalars"], rank)


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's parameters on the CPU; a tied one once."""
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            kept[name] = parameter.detach().cpu().clone()
    return kept


def _pack(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The optimizer's tensors, and its plain numbers (Muon counts steps with an int)."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, float] = {}
    for group, settings in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(settings["params"]):
            for name, value in optimizer.state.get(parameter, {}).items():
                key = f"{group}.{index}.{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value.detach().cpu().clone()
                else:
                    scalars[key] = value
    return tensors, scalars


def _unpack(
    optimizer: torch.optim.Optimizer,
    shards: list[dict[str, Tensor]],
    scalars: Mapping[str, float],
    rank: int,
) -> None:
    for group, settings in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(settings["params"]):
            prefix = f"{group}.{index}."
            state: dict[str, Any] = {
                key.removeprefix(prefix): value
                for key, value in scalars.items()
                if key.startswith(prefix)
            }
            for key in shards[0]:
                if key.startswith(prefix):
                    parts = [shard[key] for shard in shards]
                    state[key.removeprefix(prefix)] = _cut(parts, parameter, rank)
            if state:
                optimizer.state[parameter] = state


def _cut(parts: list[Tensor], parameter: Tensor, rank: int) -> Tensor:
    """This rank's slice of the joined flat state; padding at the end is dropped or added anew."""
    if len(parts) == 1 or parts[0].ndim == 0:
        return parts[0].to(parameter.device if parts[0].ndim else "cpu")
    joined, size = torch.cat(parts), parameter.numel()
    missing = (rank + 1) * size - joined.numel()
    if missing > 0:
        joined = torch.cat([joined, joined.new_zeros(missing)])
    return joined[rank * size : (rank + 1) * size].clone().to(parameter.device)


def _shard_name(rank: int, world: int) -> str:
    return f"optimizer-{rank:02d}-of-{world:02d}.safetensors"


def _remove_old(root: Path, pinned: int | None) -> None:
    """Keep the newest few and the pinned one."""
    others = [c for c in find_checkpoints(root) if c.step != pinned]
    for checkpoint in others[:-KEEP]:
        shutil.rmtree(checkpoint.folder)
