"""The plan's bytes against those that ranks really send each other in a step."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from model.config import ModelConfig
from stages.planning import communication
from stages.planning.communication import step_communication
from stages.planning.run_shape import RunShape
from stages.pretrain.loop import train
from stages.tune import engine
from stages.tune.exchange_clock import COLLECTIVES, KEPT_BY_DEEPSPEED
from stages.tune.journal import Journal
from tests.dist import ranks
from tests.dist.shapes import Shape, config, model_shape, name

pytestmark = pytest.mark.dist

SMALLEST = 200
"""Bytes below which an exchange is of counts, losses and norms, which no plan speaks of."""
MODEL = model_shape(hidden_size=32, intermediate_size=64, tie_word_embeddings=False)
DEEP = MODEL.model_copy(update={"num_hidden_layers": 12})
LAYER = 9216
"""Numbers in the matrices of one layer."""
SHAPES: list[Shape] = [
    {"workers": 2, "zero": 0},
    {"workers": 2, "zero": 1},
    {"workers": 2, "zero": 2},
    {"workers": 2, "zero": 3},
    {"workers": 2, "tensor": 2, "zero": 0},
    {"workers": 2, "tensor": 2, "zero": 0, "activation_checkpointing": True},
    {"workers": 2, "pipeline": 2, "zero": 0},
    {"workers": 2, "sequence": 2, "zero": 0},
    {"workers": 2, "sequence": 2, "zero": 2, "activation_checkpointing": True},
]


class Sent:
    """Adds up what this rank sends, as rings send it (Patarasuk and Yuan, 2009)."""

    def __init__(self) -> None:
        self.bytes, self._depth = 0.0, 0

    def listen(self) -> None:
        """Stand before the collectives from now on."""
        found = [(dist, called) for called in COLLECTIVES]
        found += [(sys.modules["deepspeed.comm.comm"].cdb, called) for called in KEPT_BY_DEEPSPEED]
        for owner, called in found:
            setattr(owner, called, self._counted(called, getattr(owner, called)))

    def _counted(self, called: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._depth == 0:  # one collective may be made of others
                self._add(called, [*args, *kwargs.values()])
            self._depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1

        return call

    def _add(self, called: str, given: list[Any]) -> None:
        """A gathered or scattered tensor is the larger of the two that a collective is given."""
        size = max(map(_bytes, given), default=0)
        if size < SMALLEST or called in ("recv", "broadcast"):
            return
        groups = [x for x in given if isinstance(x, dist.ProcessGroup)]
        members = dist.get_world_size(groups[0] if groups else None)
        halves = 2 if called == "all_reduce" else 1
        self.bytes += size if called == "send" else size * halves * (members - 1) / members


def _bytes(given: Any) -> int:
    """Of a tensor, or of a list of them; 0 of anything else."""
    if isinstance(given, (list, tuple)):
        return sum(map(_bytes, given))
    return given.numel() * given.element_size() if isinstance(given, torch.Tensor) else 0


def _train(job: dict[str, Any], folder: str, zero3: dict[str, int]) -> None:
    """Train, and write what each step sent; `zero3` are settings of DeepSpeed's."""
    sent, steps = Sent(), []
    write, section = Journal.write, engine._zero_section

    def noted(self: Journal, step: int, **values: float) -> None:
        steps.append(sent.bytes)
        sent.bytes = 0.0
        write(self, step, **values)

    Journal.write = noted  # type: ignore[method-assign]
    engine._zero_section = lambda *args: section(*args) | zero3
    engine._begin_deepspeed()
    sent.listen()
    train(job)
    Path(folder, f"sent-{dist.get_rank()}.json").write_text(json.dumps(steps))


def sent_by(
    shape: Shape,
    precision: str,
    model: ModelConfig,
    folder: Path,
    kind: str = "adamw",
    **zero3: int,
) -> tuple[float, float]:
    """(bytes that the busiest rank sends in the last of four steps, what the plan says)."""
    tokens = ranks.write_tokens(folder / "tokens")
    made = config(shape, steps=4, precision=precision, optimizer=kind)
    job = {
        "config": made.model_dump(mode="json"), "shape": model.model_dump(), "seed": 5,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "scratch": str(folder / "run"),
    }  # fmt: skip
    ranks.run(2, _train, job, str(folder), zero3, log=folder / "output")
    steps = [json.loads((folder / f"sent-{rank}.json").read_text()) for rank in range(2)]
    return max(sent[-1] for sent in steps), step_communication(RunShape(model, made)).total


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_a_step_sends_what_the_plan_says(shape: Shape, precision: str, tmp_path: Path) -> None:
    measured, planned = sent_by(shape, precision, MODEL, tmp_path)
    assert planned == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("zero", [1, 3])
def test_muon_sends_what_the_plan_says(zero: int, tmp_path: Path) -> None:
    measured, planned = sent_by({"workers": 2, "zero": zero}, "float32", MODEL, tmp_path, "muon")
    assert planned == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("again", [False, True])
def test_zero_3_gathers_twice_what_it_cannot_hold(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a model of many billions: nothing is fetched ahead, or kept beyond its layer's passes."""
    shape = {"workers": 2, "zero": 3, "activation_checkpointing": again}
    monkeypatch.setattr(communication, "LIVE_NUMBERS", 0)
    measured, planned = sent_by(
        shape, "float32", DEEP, tmp_path,
        stage3_max_live_parameters=0, stage3_max_reuse_distance=2 * LAYER,
    )  # fmt: skip
    assert planned == pytest.approx(measured, rel=0.05)
