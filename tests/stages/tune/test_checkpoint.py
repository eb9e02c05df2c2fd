"""Checkpoints: exact resume, what survives, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.tune.checkpoint import (
    _cut,
    discard_after,
    find_checkpoints,
    load_optimizer,
    newest,
    save_checkpoint,
)
from stages.tune.engine import StepGuard, client_optimizer, start_engine
from stages.tune.parallel import Parallel


def _engine(zero: int, kind: str, weights: dict[str, torch.Tensor] | None = None) -> Any:
    from model.config import ModelConfig
    from model.transformer import Transformer

    torch.manual_seed(1)
    model = Transformer(
        ModelConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    )  # fmt: skip
    if weights is not None:
        model.load_state_dict(weights, strict=False)
    optimizer = client_optimizer(model, 1e-2, 0.1, kind)  # type: ignore[arg-type]
    clip = 1.0 if kind == "adamw" else 0.0
    return start_engine(model, optimizer, Parallel(zero=zero), clip_norm=clip)


def _step(engine: Any, step: int) -> float:
    torch.manual_seed(100 + step)
    ids = torch.randint(0, 50, (4, 12))
    loss = torch.nn.functional.cross_entropy(engine.module(ids).flatten(0, 1), ids.flatten())
    engine.backward(loss)
    _, taken = StepGuard(engine).step()
    assert taken
    return loss.item()


@pytest.mark.parametrize("zero", [0, 1, 2])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resuming_continues_to_the_bit(
    zero: int, kind: str, tmp_path: Path, one_rank: Path
) -> None:
    engine = _engine(zero, kind)
    for step in range(3):
        _step(engine, step)
    save_checkpoint(tmp_path / "c", 3, engine, {"tokens": 7})
    undisturbed = [_step(engine, step) for step in range(3, 6)]
    checkpoint = newest(tmp_path / "c", lambda c: True)
    assert checkpoint is not None and checkpoint.state["tokens"] == 7
    resumed = _engine(zero, kind, checkpoint.weights())
    load_optimizer(checkpoint, resumed)
    assert [_step(resumed, step) for step in range(3, 6)] == undisturbed
    ours, theirs = dict(engine.module.named_parameters()), resumed.module.named_parameters()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs)


def test_another_zero_stage_is_refused_by_name(tmp_path: Path, one_rank: Path) -> None:
    engine = _engine(1, "adamw")
    _step(engine, 0)
    save_checkpoint(tmp_path / "c", 1, engine, {})
    with pytest.raises(ValueError, match="keep to 0, or to 1 and 2"):
        load_optimizer(find_checkpoints(tmp_path / "c")[0], _engine(0, "adamw"))


def test_the_newest_two_and_the_pinned_one_stay(tmp_path: Path, one_rank: Path) -> None:
    engine = _engine(0, "adamw")
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, engine, {}, pinned=2)
    assert [c.step for c in find_checkpoints(tmp_path)] == [2, 4, 5]
    (tmp_path / "step-00000006.partial").mkdir()  # a kill while writing
    assert find_checkpoints(tmp_path)[-1].step == 5
    chosen = newest(tmp_path, lambda c: c.step < 5)
    assert chosen is not None and chosen.step == 4
    discard_after(tmp_path, 4)
    assert [c.step for c in find_checkpoints(tmp_path)] == [2, 4]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_flat_slices_are_joined_and_cut_for_another_number_of_ranks(world: int) -> None:
    whole = torch.arange(10.0)
    parts = [torch.arange(0.0, 6), torch.cat([torch.arange(6.0, 10), torch.zeros(2)])]
    size = -(-10 // world)
    mine = [_cut(parts, torch.empty(size), rank) for rank in range(world)]
    assert torch.equal(torch.cat(mine)[:10], whole)


def test_a_step_with_gradients_that_are_not_finite_is_left_out(
    tmp_path: Path, one_rank: Path
) -> None:
    for zero, kind in [(0, "adamw"), (1, "adamw"), (0, "muon"), (1, "muon")]:
        engine = _engine(zero, kind)
        _step(engine, 0)
        before = [p.detach().clone() for p in engine.module.parameters()]
        loss = engine.module(torch.zeros(1, 4, dtype=torch.long)).sum()
        engine.backward(loss * float("nan"))
        _, taken = StepGuard(engine).step()
        assert not taken
        after = engine.module.parameters()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        _step(engine, 1)
