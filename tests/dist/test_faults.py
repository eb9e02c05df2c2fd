"""Ranks hang, dawdle and compute nonsense: what the loop makes of it, on plain gloo ranks."""

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


GUARDS = {"warmup": 6, "window": 16, "rollback_after": 3}


def spoil_two_steps(tokens: Path, folder: Path, how: str, shape: Shape, optimizer: str) -> None:
    """The last rank spoils steps 9 and 11: none takes them, all keep what they hold."""
    world = shape["workers"]
    there = job(
        tokens, folder, steps=14, guards=GUARDS, learning_rate=1e-3, optimizer=optimizer,
        parallel={"rows": 4, **shape},
    ) | {"shape": model_shape().model_dump()}  # fmt: skip
    gpu = bool(shape.get("gpu"))
    run(world, faults.spoil, there, world - 1, [9, 11], how, log=folder / "log", gpu=gpu)
    for rank in range(world):
        noted = read_journal(folder, f"held-{rank}.jsonl")
        assert [(line["step"], line["taken"]) for line in noted] == [(9, False), (11, False)]
        assert all(line["before"] == line["after"] for line in noted)
    said = events(folder, "skipped")
    assert [line["step"] for line in said] == [9, 11]
    assert all(line["why"] for line in said)
    assert read_journal(folder)[-1]["skipped"] == 2


@pytest.mark.parametrize(
    ("how", "zero"), [("nan", 0), ("inf", 2), ("loss", 1), ("gradient", 0), ("gradient", 2)]
)
def test_one_rank_spoils_a_step_and_all_skip_it(
    tokens: Path, tmp_path: Path, how: str, zero: int
) -> None:
    spoil_two_steps(tokens, tmp_path, how, {"workers": 2, "zero": zero}, "adamw")


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["nan", "inf", "loss", "gradient"])
@pytest.mark.parametrize(
    ("shape", "optimizer"),
    [
        ({"workers": 2, "zero": 1}, "adamw"),
        ({"workers": 2, "zero": 3}, "adamw"),
        ({"workers": 2, "zero": 0, "tensor": 2}, "adamw"),
        ({"workers": 2, "zero": 3, "tensor": 2}, "adamw"),
        ({"workers": 2, "zero": 0, "pipeline": 2}, "adamw"),
        ({"workers": 2, "zero": 1, "pipeline": 2}, "adamw"),
        ({"workers": 2, "zero": 2, "sequence": 2}, "adamw"),
        ({"workers": 2, "zero": 0}, "muon"),
        ({"workers": 2, "zero": 1}, "muon"),
        ({"workers": 2, "zero": 3}, "muon"),
    ],
)
def test_every_fault_at_every_kind_of_shape(
    tokens: Path, tmp_path: Path, how: str, shape: Shape, optimizer: str
) -> None:
    spoil_two_steps(tokens, tmp_path, how, shape, optimizer)


@pytest.mark.parametrize(
    ("checkpoint_every", "refused"), [(4, [9, 10, 11]), (1, [8, 9, 10])], ids=["seldom", "often"]
)
def test_after_several_refused_steps_the_run_goes_back_and_skips_the_data(
    tokens: Path, tmp_path: Path, checkpoint_every: int, refused: list[int]
) -> None:
    """Also where checkpoints come so often that they could push out the one to go back to."""
    there = job(
        tokens, tmp_path, steps=14, guards=GUARDS, checkpoint_every=checkpoint_every,
        learning_rate=1e-3, parallel={"rows": 4, "workers": 2, "zero": 1},
    )  # fmt: skip
    run(2, faults.spoil, there, 0, refused, "nan", log=tmp_path / "log")
    (back,) = events(tmp_path, "rolled back")
    assert (back["first"], back["last"]) == (8, refused[-1])
    assert [line["step"] for line in read_journal(tmp_path)] == list(range(14))
    state = find_checkpoints(tmp_path / "checkpoints")[-1].state
    assert state["skips"] == [{"first": 8, "last": refused[-1]}]
    assert state["step"] == 14


def test_data_that_was_left_out_stays_out_across_phases_and_resizes(
    tokens: Path, tmp_path: Path
) -> None:
    """A phase begins with rows that no step can take; the run goes on at another size."""
    more = write_tokens(tmp_path / "more", seed=1)
    mixture = {"weights": {"t": 1}, "phases": [{"begin": 6, "weights": {"more": 1}}]}

    def there(scratch: Path, **parallel: Any) -> dict[str, Any]:
        made = job(
            tokens, scratch, steps=14, guards=GUARDS, learning_rate=1e-3, schedule="wsd",
            parallel={"rows": 4, **parallel},
        )  # fmt: skip
        config = made["config"] | {"tokens": ["t", "more"], "mixture": mixture}
        return made | {
            "config": Config.model_validate(config).model_dump(mode="json"),
            "tokens": {"t": str(tokens / "train"), "more": str(more / "train")},
            "heldout": {"t": str(tokens / "heldout"), "more": str(more / "heldout")},
        }

    first = there(tmp_path / "run", workers=2, zero=1)
    data = TrainingSet(Config.model_validate(first["config"]), folders_of(first["tokens"]), 5)
    bad = {row for step in (6, 7, 8) for row in faults.row_hashes(data.batch(step).input_ids)}
    for parallel, step in (({"workers": 2, "zero": 1}, 10), ({"workers": 1, "zero": 0}, 14)):
        again = there(tmp_path / "run", **parallel)
        run(parallel["workers"], faults.poison, again, bad, step, log=tmp_path / "log")
    (back,) = events(tmp_path / "run", "rolled back")
    assert [line["step"] for line in events(tmp_path / "run", "skipped")] == [6, 7, 8]
    skips = find_checkpoints(tmp_path / "run" / "checkpoints")[-1].state["skips"]
    assert skips == [{"first": back["first"], "last": 8}] and back["first"] <= 6
    read = rows_read(tmp_path / "run")
    for step in range(14):
        assert read[step] == faults.row_hashes(data.batch(step, skips).input_ids)
        assert not bad & set(read[step])
    alone = there(tmp_path / "alone", workers=1, zero=0)
    run(1, faults.poison, alone, bad, 14, log=tmp_path / "log")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)


def hang(tokens: Path, folder: Path, watch: dict[str, Any], gpu: bool = False) -> float:
    """Seconds from where one rank stops until every rank has ended with the stacks told."""
    parallel = {"rows": 4, "workers": 2, "zero": 1, "gpu": gpu}
    there = job(tokens, folder, watch=watch, parallel=parallel)
    ranks = start(2, faults.hang, there, 1, 5, log=folder / "log", gpu=gpu)
    codes = finish(ranks, limit_s=300)
    took = time.time() - float((folder / faults.HANG_BEGAN).read_text())
    assert 70 in codes and 0 not in codes, (folder / "log").read_text()[-3000:]
    said = (folder / "watch" / "hang.txt").read_text()
    assert "rank 1" in said and "in stuck" in said and "rank 0" in said
    assert "is at stuck (faults.py" in said
    return took


def test_a_hang_becomes_an_error_with_every_ranks_stack(tokens: Path, tmp_path: Path) -> None:
    hang(tokens, tmp_path, {"hang_s": 3.0})


@pytest.mark.chaos
def test_a_hang_at_the_usual_limit(tokens: Path, tmp_path: Path) -> None:
    print(f"a hang was an error after {hang(tokens, tmp_path, {}):.1f} s")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_slow_store_is_no_hang(tokens: Path, tmp_path: Path, victim: int) -> None:
    """One rank writes for longer than a hang may last; none of them counts that as silence."""
    there = job(
        tokens, tmp_path, steps=3, checkpoint_every=2, watch={"hang_s": 2.0},
        parallel={"rows": 4, "workers": 2, "zero": 1},
    )  # fmt: skip
    run(2, faults.store_slowly, there, victim, 4.0, log=tmp_path / "log")
    assert [c.step for c in find_checkpoints(tmp_path / "checkpoints")] == [2, 3]


SLOW: list[Shape] = [
    {"workers": 2, "zero": 0},
    {"workers": 2, "zero": 3},
    {"workers": 2, "zero": 1, "tensor": 2},
    {"workers": 4, "zero": 1, "pipeline": 2},
    {"workers": 2, "zero": 1, "sequence": 2},
]


def _dawdle(tokens: Path, folder: Path, shape: Shape) -> None:
    world = shape["workers"]
    there = job(tokens, folder, parallel={"rows": 4, **shape}) | {
        "shape": model_shape().model_dump()
    }
    run(world, faults.dawdle, there, world - 1, 6, 1.0, log=folder / "log")
    (named,) = events(folder, "slow")
    assert named["rank"] == world - 1 and named["step"] == 8 and named["times"] > 1.5


def test_a_slow_rank_is_named_within_three_steps(tokens: Path, tmp_path: Path) -> None:
    _dawdle(tokens, tmp_path, SLOW[0])


@pytest.mark.chaos
@pytest.mark.parametrize("shape", SLOW[1:], ids=name)
def test_a_slow_rank_at_other_shapes(tokens: Path, tmp_path: Path, shape: Shape) -> None:
    """Where all wait for the slowest in the middle of a pass, only its own work tells."""
    _dawdle(tokens, tmp_path, shape)


@pytest.mark.chaos
def test_ten_thousand_steps_on_real_text_raise_no_alarm(tmp_path: Path) -> None:
    """Bytes of the standard library's source, two ranks, every guard and watch at its default."""
    tokens, steps = write_source(tmp_path / "tokens"), 10_000
    there = job(
        tokens, tmp_path, steps=steps, warmup_steps=100, batch_tokens=512, sequence_length=64,
        learning_rate=3e-3, checkpoint_every=1000, schedule="wsd", watch={},
        parallel={"rows": 4, "workers": 2, "zero": 1},
    ) | {"shape": model_shape(vocab_size=256).model_dump()}  # fmt: skip
    run(2, faults.train, there, log=tmp_path / "log", limit_s=590)
    log = read_journal(tmp_path)
    assert [line["step"] for line in log] == list(range(steps))
    assert log[-1]["loss"] < log[0]["loss"] - 1
    assert read_journal(tmp_path, EVENTS) == []
