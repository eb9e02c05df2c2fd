"""Checkpoints by parameter: exact resume, any ZeRO stage to any other, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import UserError
from cluster.folder import Folder
from model.config import ModelConfig
from model.transformer import Transformer
from stages.tune.checkpoint import (
    Part,
    check_space,
    discard_after,
    find_checkpoints,
    newest,
)
from stages.tune.engine import StepGuard, client_optimizer, start_engine
from stages.tune.fragments import pieces, place_of, whole_shapes
from stages.tune.memory import TrainingMemory
from stages.tune.parallel import Parallel
from stages.tune.saver import Saver, Snapshot

SHAPE = ModelConfig(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8,
)  # fmt: skip


class _Training:
    """A model under an engine, and its memory in a folder."""

    def __init__(self, folder: Path, zero: int, kind: str = "adamw", seed: int = 1) -> None:
        torch.manual_seed(seed)
        model = Transformer(SHAPE)
        shapes = whole_shapes(model)
        optimizer = client_optimizer(model, 1e-2, 0.1, kind)  # type: ignore[arg-type]
        clip = 1.0 if kind == "adamw" else 0.0
        self.engine = start_engine(model, optimizer, Parallel(zero=zero), clip_norm=clip)
        held = pieces(self.engine, shapes, place_of(self.engine))
        shape = SHAPE.model_dump()
        self.memory = TrainingMemory(str(folder), folder / "s", self.engine, held, shape, 2, 0)

    def step(self, number: int) -> float:
        torch.manual_seed(100 + number)
        ids = torch.randint(0, 50, (4, 12))
        logits = self.engine.module(ids).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, ids.flatten())
        self.engine.backward(loss)
        _, taken = StepGuard(self.engine).step()
        assert taken
        return loss.item()

    def save(self, step: int, **state: Any) -> None:
        self.memory.save(step, state)
        self.memory.saver.wait()

    def weights(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.engine.module.named_parameters()}


@pytest.mark.parametrize("zero", [0, 1, 2])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resuming_continues_to_the_bit(
    zero: int, kind: str, tmp_path: Path, one_rank: Path
) -> None:
    training = _Training(tmp_path / "c", zero, kind)
    for step in range(3):
        training.step(step)
    training.save(3, tokens=7)
    undisturbed = [training.step(step) for step in range(3, 6)]
    resumed = _Training(tmp_path / "c", zero, kind, seed=2)
    state = resumed.memory.take_up(lambda c: True)
    assert state["tokens"] == 7 and state["step"] == 3
    assert [resumed.step(step) for step in range(3, 6)] == undisturbed
    ours, theirs = training.weights(), resumed.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    training.memory.go_back(lambda c: True)  # in place, in the middle of a run
    assert [training.step(step) for step in range(3, 6)] == undisturbed


@pytest.mark.parametrize(("kind", "before", "after"), [("adamw", 0, 2), ("muon", 1, 0)])
def test_another_zero_stage_goes_on(
    kind: str, before: int, after: int, tmp_path: Path, one_rank: Path
) -> None:
    training = _Training(tmp_path / "c", before, kind)
    for step in range(3):
        training.step(step)
    training.save(3)
    resumed = _Training(tmp_path / "c", after, kind, seed=2)
    resumed.memory.take_up(lambda c: True)
    losses = [(training.step(step), resumed.step(step)) for step in range(3, 8)]
    assert all(one == pytest.approx(other, abs=1e-5) for one, other in losses)


def test_a_checkpoint_of_another_model_is_refused_with_the_numbers(
    tmp_path: Path, one_rank: Path
) -> None:
    training = _Training(tmp_path, 0)
    training.save(1)
    training.memory.model = {"hidden_size": 32}
    with pytest.raises(UserError, match="its hidden_size is 16, this run's is 32"):
        training.memory.take_up(lambda c: True)


def test_a_corrupt_shard_is_refused_and_says_what_is_left(tmp_path: Path, one_rank: Path) -> None:
    training = _Training(tmp_path, 1)
    training.save(1)
    training.save(2)
    (shard,) = tmp_path.glob("step-00000002-*/optimizer-*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"optimizer-00-of-01.*sha256.*goes on from step 1"):
        training.memory.take_up(lambda c: True)


def test_one_of_another_version_is_refused_and_kept(tmp_path: Path) -> None:
    """To pass over it would be to begin anew, and to remove it as what a kill left half done."""
    state = tmp_path / "step-00000004-abc" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"format": 2, "step": 4}))
    for find in (find_checkpoints, lambda root: discard_after(root, 4)):
        with pytest.raises(UserError, match="format 2, this version reads and writes 3"):
            find(tmp_path)
    assert state.exists()


def test_a_disk_too_small_is_refused_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "free_bytes", lambda self: 3 * 2**30)
    check_space(Folder(tmp_path), parameters=10**8, states=2, copies=2)
    with pytest.raises(UserError, match=r"3\.00 GiB free .* 4 checkpoints of 1\.12 GiB, 4\.47 GiB"):
        check_space(Folder(tmp_path), parameters=10**8, states=2, copies=4)


def test_half_done_and_later_ones_go(tmp_path: Path, one_rank: Path) -> None:
    training = _Training(tmp_path, 0)
    for step in range(1, 4):
        training.save(step)
    (tmp_path / "step-00000009-dead").mkdir()  # a kill while writing
    (tmp_path / "step-00000009-dead" / "weights-00-of-01.safetensors").touch()
    assert [c.step for c in find_checkpoints(tmp_path)] == [2, 3]
    chosen = newest(tmp_path, lambda c: c.step < 3)
    assert chosen is not None and chosen.step == 2
    discard_after(tmp_path, 2)
    assert [path.name.split("-")[1] for path in tmp_path.glob("step-*")] == ["00000002"]


@pytest.mark.parametrize("dimension", [0, 1])
def test_slices_of_tensor_parallel_ranks_are_joined_and_cut_anew(
    tmp_path: Path, dimension: int
) -> None:
    whole = torch.arange(48.0).view(8, 6)
    shares = []
    for index in range(2):  # two tensor-parallel ranks, each of two ranges, as ZeRO over TP holds
        local = whole.chunk(2, dimension)[index].reshape(-1)
        ranges = [(0, 10), (10, 24)]
        parts = [Part("w", "weight", (8, 6), (dimension, index, 2), a, b) for a, b in ranges]
        data = {part.key: local[part.start : part.stop].clone() for part in parts}
        shares.append(Snapshot({f"weights-{index:02d}-of-02.safetensors": (parts, data)}, {}))
    savers = [Saver(Folder(tmp_path), "abc", rank, 2) for rank in range(2)]
    for saver, share in zip(savers, shares, strict=True):
        saver.save(1, share, {})
    for saver in savers:
        saver.wait()
    (checkpoint,) = find_checkpoints(tmp_path)
    assert torch.equal(checkpoint.weights()["w"], whole)
    assert torch.equal(checkpoint.read("w", "weight", None, 5, 31), whole.view(-1)[5:31])
    for split in [(0, 1, 2), (1, 2, 3), (0, 3, 4), (1, 0, 2)]:
        local = whole.chunk(split[2], split[0])[split[1]].reshape(-1)
        assert torch.equal(checkpoint.read("w", "weight", split, 1, 5), local[1:5])
