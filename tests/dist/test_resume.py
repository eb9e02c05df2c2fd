"""Killed and resized runs end as undisturbed ones: to the bit on the same shape, by their loss on others."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from stages.pretrain import Config
from stages.pretrain.data import TrainingSet, folders_of
from stages.tune.checkpoint import find_checkpoints
from stages.tune.journal import EVENTS, read_journal
from tests.dist import faults
from tests.dist.left_behind import events, losses, rows_read, weights
from tests.dist.ranks import finish, job, run, start, write_source, write_tokens
from tests.dist.shapes import EXPERT_SIZES, Shape, model_shape, name

pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


def _kill_and_compare(
    tokens: Path,
    folder: Path,
    kills: int,
    steps: int,
    seed: int,
    shape: Shape,
    sizes: Mapping[str, Any] = MappingProxyType({}),
    **fields: Any,
) -> None:
    """Kill one of the ranks in each of `kills` random steps; the run must end as if none was."""
    whole, killed = (
        job(tokens, folder / name, **{"steps": steps, "parallel": shape} | fields)
        | {"shape": model_shape(**sizes).model_dump()}
        for name in ("whole", "killed")
    )
    world = shape["workers"]
    run(world, faults.train, whole, log=folder / "log")
    draw = random.Random(seed)
    for step in sorted(draw.sample(range(1, steps), kills)):
        victim = draw.randrange(world)
        ranks = start(
            world, faults.die, killed, victim, step, draw.randint(1, 5), log=folder / "log"
        )
        codes = finish(ranks, limit_s=300)
        assert codes[victim] == -signal.SIGKILL and 0 not in codes, f"step {step}: {codes}"
    run(world, faults.train, killed, log=folder / "log")
    assert losses(folder / "killed") == losses(folder / "whole")
    assert len(losses(folder / "whole")) == steps
    ours, theirs = weights(folder / "killed"), weights(folder / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


ZERO_1: Shape = {"rows": 3, "workers": 2, "zero": 1}


def test_killed_runs_end_with_the_same_bits(tokens: Path, tmp_path: Path) -> None:
    _kill_and_compare(tokens, tmp_path, 3, 12, 1, ZERO_1)


def test_a_node_that_is_about_to_leave_costs_no_step(tokens: Path, tmp_path: Path) -> None:
    """One rank hears of it between two checkpoints; all commit that step, and leave."""
    whole, left = (
        job(tokens, tmp_path / name, checkpoint_every=5, parallel=ZERO_1)
        for name in ("whole", "left")
    )
    run(2, faults.train, whole, log=tmp_path / "log")
    run(2, faults.leave, left, 1, 6, log=tmp_path / "log")
    assert [c.step for c in find_checkpoints(tmp_path / "left/checkpoints")] == [5, 7]
    assert len(losses(tmp_path / "left")) == 7
    (event,) = events(tmp_path / "left", "leaving")
    assert (event["step"], event["ranks"]) == (7, [1])
    run(2, faults.train, left, log=tmp_path / "log")
    assert [e["step"] for e in events(tmp_path / "left", "resumed")] == [7]
    assert losses(tmp_path / "left") == losses(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "left"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_that_ends_with_that_step_ends(tokens: Path, tmp_path: Path) -> None:
    there = job(tokens, tmp_path, steps=6, parallel=ZERO_1)
    run(2, faults.leave, there, 0, 5, log=tmp_path / "log")
    assert not events(tmp_path, "leaving") and len(losses(tmp_path)) == 6


MORE: dict[str, dict[str, Any]] = {
    "experts": {"sizes": EXPERT_SIZES},
    "bfloat16": {"precision": "bfloat16"},
    "recomputed": {"shape": ZERO_1 | {"activation_checkpointing": True}},
    "offloaded": {"shape": ZERO_1 | {"zero": 2, "offload_optimizer": "cpu"}},
    "evaluated": {"evaluate_every": 3, "early_stop": {"every": 4, "patience": 9}},
    "latent": {"sizes": {"kv_lora_rank": 8, "num_key_value_heads": 4}},
}


@pytest.mark.parametrize("kind", MORE)
def test_killed_runs_of_every_kind_end_with_the_same_bits(
    tokens: Path, tmp_path: Path, kind: str
) -> None:
    fields = {"shape": ZERO_1} | MORE[kind]
    _kill_and_compare(tokens, tmp_path, 2, 8, len(kind), **fields)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("shape", "optimizer"),
    [
        ({"rows": 3, "workers": 1, "zero": 0}, "adamw"),
        ({"rows": 3, "workers": 2, "zero": 0}, "adamw"),
        (ZERO_1, "adamw"),
        ({"rows": 3, "workers": 2, "zero": 2}, "adamw"),
        ({"rows": 3, "workers": 2, "zero": 3}, "adamw"),
        ({"rows": 4, "workers": 2, "zero": 1, "tensor": 2}, "adamw"),
        ({"rows": 4, "workers": 2, "zero": 1, "pipeline": 2}, "adamw"),
        ({"rows": 4, "workers": 2, "zero": 2, "sequence": 2}, "adamw"),
        (ZERO_1, "muon"),
        ({"rows": 3, "workers": 2, "zero": 3}, "muon"),
    ],
)
def test_twenty_kills(tokens: Path, tmp_path: Path, shape: Shape, optimizer: str) -> None:
    _kill_and_compare(tokens, tmp_path, 20, 60, len(str(shape)), shape, optimizer=optimizer)


SAMPLE: list[Shape] = [
    {"workers": 2, "zero": 1},
    {"workers": 1, "zero": 0},
    {"workers": 2, "zero": 0, "tensor": 2},
    {"workers": 2, "zero": 3},
    {"workers": 3, "zero": 2},
]
MUON: list[Shape] = [
    {"workers": 2, "zero": 1},
    {"workers": 3, "zero": 2},
    {"workers": 1, "zero": 0},
    {"workers": 2, "zero": 3},
]
OTHERS: list[Shape] = [
    {"workers": 4, "zero": 1, "tensor": 2},
    {"workers": 2, "zero": 0, "pipeline": 2},
    {"workers": 2, "zero": 1, "sequence": 2},
    {"workers": 4, "zero": 3, "tensor": 2},
    {"workers": 4, "zero": 1, "pipeline": 2},
    {"workers": 2, "zero": 0},
    {"workers": 4, "zero": 3},
]


def _chain(tokens: Path, folder: Path, chain: list[Shape], optimizer: str = "adamw") -> None:
    """Two steps at each shape, every one taking up the last one's checkpoint."""
    steps = 2 * len(chain)
    fields: dict[str, Any] = {"optimizer": optimizer, "checkpoint_every": 2}
    shape = model_shape().model_dump()
    alone = job(tokens, folder / "alone", steps=steps, **fields) | {"shape": shape}
    run(1, faults.train, alone, log=folder / "log")
    for number, parallel in enumerate(chain):
        there = job(
            tokens, folder / "chain", steps=steps, parallel={"rows": 2, **parallel}, **fields
        ) | {"shape": shape}
        ranks = start(parallel["workers"], faults.until, there, 2 * number + 2, log=folder / "log")
        codes = finish(ranks, limit_s=300)
        said = (folder / "log").read_text()[-5000:]
        assert codes == [0] * parallel["workers"], f"{parallel}\n{said}"
    assert losses(folder / "chain") == pytest.approx(losses(folder / "alone"), abs=1e-5)
    assert len(losses(folder / "chain")) == steps
    assert rows_read(folder / "chain") == rows_read(folder / "alone")


def test_any_shape_continues_any_other(tokens: Path, tmp_path: Path) -> None:
    _chain(tokens, tmp_path, SAMPLE)


def test_muon_continues_on_another_number_of_workers(tokens: Path, tmp_path: Path) -> None:
    _chain(tokens, tmp_path, MUON, "muon")


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_all_shapes(tokens: Path, tmp_path: Path, seed: int) -> None:
    shapes = [*SAMPLE, *OTHERS]
    _chain(tokens, tmp_path, random.Random(seed).sample(shapes, len(shapes)))


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_muons_shapes(tokens: Path, tmp_path: Path, seed: int) -> None:
    others: list[Shape] = [
        {"workers": 3, "zero": 1},
        {"workers": 2, "zero": 0},
        {"workers": 2, "zero": 2},
        {"workers": 4, "zero": 3},
        {"workers": 2, "zero": 1, "sequence": 2},
        {"workers": 2, "zero": 0, "pipeline": 2},
    ]
    shapes = [*MUON, *others]
    _chain(tokens, tmp_path, random.Random(seed).sample(shapes, len(shapes)), "muon")


def test_layers_of_several_kinds_are_taken_up_again(tokens: Path, tmp_path: Path) -> None:
    shape = model_shape(
        sliding_window=8, layer_types=["sliding_attention", "full_attention"], num_hidden_layers=2
    ).model_dump(mode="json")
    for place, steps in (("twice", 6), ("twice", 12), ("once", 12)):
        there = job(tokens, tmp_path / place, schedule="wsd", steps=12) | {"shape": shape}
        target = faults.until if steps == 6 else faults.train
        more = (6,) if steps == 6 else ()
        run(1, target, there, *more, log=tmp_path / f"{place}.log")
    assert events(tmp_path / "twice", "resumed")
    assert losses(tmp_path / "twice") == losses(tmp_path / "once")
