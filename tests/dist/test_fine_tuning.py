"""The stages on TRL as the command runs them: workers of Ray Train, their result in the folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.rank import Leaving
from cluster.watch import HANG_EXIT
from model import pretrained
from model.tokenizer import Tokenizer
from stages.registry import find_stage
from stages.stage import Context
from stages.tune.journal import read_journal
from stages.tune.trl_worker import last_complete
from tests.dist import ranks
from tests.stages.small import write_examples, write_model

pytestmark = [pytest.mark.dist, pytest.mark.usefixtures("ray_session")]

SMALL = {"model": "m", "examples": "e", "batch_rows": 4, "sequence_length": 64}


@pytest.fixture
def inputs(tmp_path: Path, as_artifact: Callable[..., Artifact]) -> dict[str, Any]:
    return {
        "model": as_artifact(write_model(tmp_path / "model"), "checkpoint"),
        "examples": as_artifact(write_examples(tmp_path / "examples"), "examples"),
    }


def run(name: str, inputs: dict[str, Any], context: Context, **fields: Any) -> dict[str, Any]:
    made = find_stage(name)
    return dict(made.run(made.config.model_validate({**SMALL, **fields}), inputs, context))


def test_sft_on_two_ranks(inputs: dict[str, Any], context: Context) -> None:
    told: list[tuple[float, float]] = []
    context = replace(context, progress=lambda done, total, text: told.append((done, total)))
    metrics = run("sft", inputs, context, steps=3, parallel={"workers": 2})
    assert metrics["steps"] == 3 and metrics["heldout_loss"] > 0 and metrics["loss"] > 0
    assert pretrained.load(context.out).config.num_hidden_layers == 2
    Tokenizer.load(context.out)
    log = [json.loads(line) for line in (context.out / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 3 and log[-1]["loss"] == pytest.approx(metrics["loss"], abs=1e-3)
    assert list((context.out / "tensorboard").iterdir())
    assert told[-1] == (3, 3)
    assert log[-1]["tokens"] == metrics["tokens"]


def test_tokens_are_counted_over_a_change_of_size(inputs: dict[str, Any], context: Context) -> None:
    """Two steps on two workers, then two on one: all of the four steps' tokens."""
    fields = {"checkpoint_every": 2}
    half = run("sft", inputs, context, steps=2, parallel={"workers": 2}, **fields)
    context = replace(context, out=context.out / "longer")
    whole = run("sft", inputs, context, steps=4, **fields)
    assert whole["tokens"] == pytest.approx(2 * half["tokens"], rel=0.2)
    log = [json.loads(line) for line in (context.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 4]
    assert [line["tokens"] for line in log] == [half["tokens"], whole["tokens"]]


@pytest.mark.parametrize(
    ("name", "fields", "metric"),
    [("reward", {}, "accuracy"), ("dpo", {}, "loss"), ("distill", {"layers": 1}, "loss")],
)
def test_one_worker(
    name: str, fields: dict[str, Any], metric: str, inputs: dict[str, Any], context: Context
) -> None:
    metrics = run(name, inputs, context, steps=2, **fields)
    assert metrics["steps"] == 2 and metrics["flops"] > 0 and metric in metrics
    assert (context.out / "model.safetensors").is_file()
    assert (context.out / "tokenizer.json").is_file()


def sft_job(inputs: dict[str, Any], folder: Path, **fields: Any) -> dict[str, Any]:
    """What SFT's loop is given on each of two ranks."""
    made = find_stage("sft").config.model_validate(
        {**SMALL, "parallel": {"workers": 2}, **fields}
    )
    return {
        "config": made.model_dump(mode="json"), "model": str(inputs["model"].path),
        "examples": str(inputs["examples"].path), "scratch": str(folder / "scratch"), "seed": 1,
        "flops_budget": None,
    }  # fmt: skip


def stuck(job: dict[str, Any]) -> None:
    """SFT whose first rank asks for ever, after its second step, whether a budget is spent."""
    from stages.align import sft_run
    from stages.tune import trl_worker

    spent, asked = trl_worker.Meter.spent, 0

    def ask(meter: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2 and os.environ["RANK"] == "0":
            time.sleep(1e6)
        return spent(meter)

    trl_worker.Meter.spent = ask  # type: ignore[method-assign]
    sft_run.train(job)


def test_a_hang_becomes_an_error_here_too(inputs: dict[str, Any], tmp_path: Path) -> None:
    job = sft_job(inputs, tmp_path, steps=6, watch={"hang_s": 3.0})
    codes = ranks.finish(ranks.start(2, stuck, job, log=tmp_path / "log"), limit_s=120)
    assert HANG_EXIT in codes, (tmp_path / "log").read_text()[-3000:]
    told = (tmp_path / "scratch" / "watch" / "hang.txt").read_text()
    assert "rank 0" in told and "is at ask (test_fine_tuning.py" in told


def leave(job: dict[str, Any]) -> None:
    """SFT whose second rank is told to leave in its third step; returns where the group ends."""
    from stages.align import sft_run
    from stages.tune import trl_worker

    asked = 0

    def told() -> bool:
        nonlocal asked
        asked += 1
        return asked >= 3 and os.environ["RANK"] == "1"

    trl_worker.told_to_leave = told
    try:
        sft_run.train(job)
    except Leaving:
        dist.barrier()


def again(job: dict[str, Any]) -> None:
    from stages.align import sft_run

    sft_run.train(job)


def test_a_group_that_is_told_to_leave_saves_its_step(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    job = sft_job(inputs, tmp_path, steps=5)
    ranks.run(2, leave, job, log=tmp_path / "log")
    left, note = last_complete(tmp_path / "scratch" / "trl")
    assert left and note["step"] == 3, "checkpoints are far apart"
    assert not (tmp_path / "scratch" / "model").exists()
    ranks.run(2, again, job, log=tmp_path / "log")
    assert read_journal(tmp_path / "scratch")[-1]["step"] == 5
    pretrained.load(tmp_path / "scratch" / "model")


def test_a_mistake_found_in_a_worker_is_the_users(inputs: dict[str, Any], context: Context) -> None:
    (inputs["examples"].path / "conversations.jsonl").unlink()
    with pytest.raises(UserError, match=r"conversations\.jsonl does not exist"):
        run("sft", inputs, context, steps=2)
