"""Training checkpoints: safetensors shards of weights and optimizer states, by parameter.

A checkpoint is a folder `step-00000123-<launch>`, on a file system or an object store, of

* `weights-00-of-02.safetensors`, `optimizer-00-of-02.safetensors`: what that rank saved, each
  tensor a range of a flattened parameter (or of an equal slice of it), told in the file's header;
* `state.json`: the step, whatever the loop counts, and every file with its size and sha256.

`state.json` is committed last, in one step, so a checkpoint that a kill left half done does not
exist. Nothing in it is a pickle, and nothing depends on the shape it was written on: any other
number of workers or ZeRO stage reads the ranges it needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cluster.artifact import file_sha256
from cluster.errors import UserError
from cluster.folder import Folder
from stages.tune.fragments import WEIGHT, Split

STATE = "state.json"
HEADER = "parts"
FORMAT = 3
"""Of `state.json` and the shards' headers; another is refused, since the run would discard it."""


@dataclass(frozen=True)
class Part:
    """Elements [start, stop) of one tensor of a parameter, under `key` in a shard."""

    name: str
    kind: str
    shape: tuple[int, ...]
    split: Split | None
    start: int
    stop: int
    file: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}:{self.kind}:{self.start}"

    def row(self) -> list[Any]:
        return [self.name, self.kind, self.shape, self.split, self.start, self.stop]

    @classmethod
    def of(cls, row: Sequence[Any], file: str) -> Part:
        name, kind, shape, split, start, stop = row
        return cls(name, kind, tuple(shape), tuple(split) if split else None, start, stop, file)


@dataclass
class Checkpoint:
    """A complete checkpoint. Its shards are mapped, so what is read costs no more than itself."""

    folder: Folder
    name: str
    step: int
    state: Mapping[str, Any]
    _parts: dict[str, dict[str, dict[str, list[Part]]]] = field(default_factory=dict, repr=False)
    """"weights" or "optimizer" -> parameter -> kind -> parts."""
    _open: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        return f"{self.folder.url}"

    @property
    def files(self) -> list[dict[str, Any]]:
        """Each shard's path, size and sha256."""
        return list(self.state["files"])

    def weights(self) -> dict[str, Tensor]:
        """The whole model's tensors, by name, on the CPU."""
        return {name: self.whole(name, WEIGHT) for name in self.parts("weights")}

    def parts(self, prefix: str) -> dict[str, dict[str, list[Part]]]:
        """Every shard's parts of "weights" or of the "optimizer"'s states, by name and kind."""
        if prefix not in self._parts:
            found: dict[str, dict[str, list[Part]]] = {}
            for entry in self.files:
                if entry["path"].startswith(prefix):
                    for row in json.loads(self._shard(entry["path"]).metadata()[HEADER]):
                        part = Part.of(row, entry["path"])
                        found.setdefault(part.name, {}).setdefault(part.kind, []).append(part)
            self._parts[prefix] = found
        return self._parts[prefix]

    def of(self, name: str, kind: str) -> list[Part]:
        prefix = "weights" if kind == WEIGHT else "optimizer"
        return self.parts(prefix).get(name, {}).get(kind, [])

    def kinds(self, name: str) -> list[str]:
        """The optimizer's states that a parameter has."""
        return list(self.parts("optimizer").get(name, {}))

    def numbers(self, name: str) -> Mapping[str, float]:
        """The optimizer's plain numbers that a parameter has."""
        found: Mapping[str, float] = self.state["numbers"].get(name, {})
        return found

    def read(self, name: str, kind: str, split: Split | None, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of a parameter's flattened slice, whoever wrote them."""
        parts = [part for part in self.of(name, kind) if part.split == split]
        if not parts:
            return slice_of(self.whole(name, kind), split).reshape(-1)[start:stop]
        return self._range(parts, start, stop)

    def whole(self, name: str, kind: str) -> Tensor:
        """A parameter's whole tensor, or one of its states, from all shards."""
        parts = self.of(name, kind)
        if not parts:
            raise self._lacks(name, kind)
        full: Tensor | None = None
        for split in dict.fromkeys(part.split for part in parts):
            same = [part for part in parts if part.split == split]
            count = math.prod(parts[0].shape) // (split[2] if split else 1)
            values = self._range(same, 0, count)
            full = torch.empty(parts[0].shape, dtype=values.dtype) if full is None else full
            target = slice_of(full, split)
            target.copy_(values.view(target.shape))
        assert full is not None
        return full

    def _range(self, parts: Sequence[Part], start: int, stop: int) -> Tensor:
        """Elements [start, stop), joined from parts of the same slice."""
        found: list[Tensor] = []
        at = start
        for part in sorted(parts, key=lambda part: part.start):
            last = min(part.stop, stop)
            if part.start <= at < last:
                values = self._shard(part.file).get_slice(part.key)
                found.append(values[at - part.start : last - part.start])
                at = last
        if at < stop:
            raise self._lacks(parts[0].name, parts[0].kind)
        return torch.cat(found)

    def _shard(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.folder.fetch(file), "pt")
        return self._open[file]

    def _lacks(self, name: str, kind: str) -> UserError:
        return UserError(
            f"checkpoint {self.place} lacks the {kind} of {name}, which this run's model has: it "
            "is of another model; give the run a store of its own, or remove that checkpoint"
        )

    def faults(self, files: Sequence[Mapping[str, Any]] | None = None) -> Iterator[str]:
        """What differs between the shards (or some of them) and `state.json`."""
        for entry in self.files if files is None else files:
            size = self.folder.size(entry["path"])
            if size is None:
                yield f"{entry['path']} is missing"
            elif size != entry["size"]:
                yield f"{entry['path']} has {size} bytes, expected {entry['size']}"
            elif (found := file_sha256(self.folder.fetch(entry["path"]))) != entry["sha256"]:
                self.folder.forget(entry["path"])
                yield (
                    f"{entry['path']} has sha256 {found[:12]}..., expected "
                    f"{entry['sha256'][:12]}..."
                )


def slice_of(full: Tensor, split: Split | None) -> Tensor:
    """A tensor-parallel rank's slice of a whole tensor."""
    if split is None:
        return full
    dimension, index, count = split
    return full.chunk(count, dimension)[index]


def damaged(checkpoint: Checkpoint, fault: str, others: Sequence[Checkpoint]) -> UserError:
    """The refusal of a checkpoint with a shard that is lost or changed on disk."""
    before = [other.step for other in others if other.step < checkpoint.step]
    instead = f"goes on from step {max(before)}" if before else "starts anew"
    return UserError(
        f"checkpoint {checkpoint.place} is damaged: {fault}; remove that folder, and the run "
        f"{instead}"
    )


def find_checkpoints(root: Folder | Path) -> list[Checkpoint]:
    """Every complete checkpoint under `root`, oldest first; not what a kill left half done."""
    root = root if isinstance(root, Folder) else Folder(root)
    found = []
    for path in root.names(f"step-*/{STATE}"):
        text = root.read(path)
        if text is None:  # removed since it was listed
            continue
        name = path.split("/")[0]
        try:
            state = json.loads(text)
        except ValueError as error:
            raise UserError(
                f"{root.url}/{path} is damaged ({error}); remove that folder, and the run goes on "
                "from the checkpoint before it"
            ) from error
        if state.get("format") != FORMAT:
            raise UserError(
                f"checkpoint {root.url}/{name} has format {state.get('format')}, this version "
                f"reads and writes {FORMAT}: go on with the version that wrote it, or move the "
                "folder away to begin anew"
            )
        found.append(Checkpoint(root / name, name, int(state["step"]), state))
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.name))


def newest(root: Folder | Path, fits: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    """The newest checkpoint that `fits` the run to be continued."""
    return next(filter(fits, reversed(find_checkpoints(root))), None)


def remove_checkpoint(checkpoint: Checkpoint) -> None:
    """Remove one; it stops existing before its shards go."""
    checkpoint.folder.remove(STATE)
    checkpoint.folder.remove()


def discard_after(root: Folder | Path, step: int) -> None:
    """Remove checkpoints past `step` (another course of the same run, which this one leaves) and
    what kills left half done.
    """
    root = root if isinstance(root, Folder) else Folder(root)
    kept = set()
    for checkpoint in find_checkpoints(root):
        if checkpoint.step > step:
            remove_checkpoint(checkpoint)
        else:
            kept.add(checkpoint.name)
    for name in {path.split("/")[0] for path in root.names("step-*/*")} - kept:
        (root / name).remove()


def check_model(checkpoint: Checkpoint, model: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another model; `model` is the run's shape, by field."""
    theirs: Mapping[str, Any] = checkpoint.state.get("model", {})
    for name, expected in model.items():
        if name in theirs and theirs[name] != expected:
            raise UserError(
                f"checkpoint {checkpoint.place} is of another model: its {name} is "
                f"{theirs[name]}, this run's is {expected}; give the run a store of its own, or "
                "remove that checkpoint"
            )


def check_space(root: Folder, parameters: int, states: int, copies: int) -> None:
    """Refuse a store that cannot hold `copies` checkpoints of that many float32 parameters, each
    with `states` numbers of optimizer state.
    """
    free = root.free_bytes()
    each = 4 * parameters * (1 + states)
    here = sum(entry["size"] for c in find_checkpoints(root) for entry in c.files)
    if free is not None and free + here < each * copies:
        raise UserError(
            f"{root.url} has {_gib(free)} GiB free and the run keeps {copies} checkpoints of "
            f"{_gib(each)} GiB, {_gib(each * copies)} GiB: free some space (`raylm gc`), keep "
            "fewer (checkpoints.last, checkpoints.every), or give another store"
        )


def _gib(size: int) -> str:
    """Bytes as GiB with three significant digits."""
    value = size / 2**30
    return f"{value:.{max(0, 2 - math.floor(math.log10(max(value, 1e-9))))}f}"
