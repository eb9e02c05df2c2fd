"""Questions asked in the loop: at any parallel shape, the answers of the same weights in one."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import ModelConfig
from model.loss import token_logprobs
from model.transformer import Transformer
from stages.pretrain.loop import train
from stages.tune.checkpoint import find_checkpoints
from tests.dist import ranks
from tests.dist.shapes import LENGTH, Shape, config, model_shape, name

pytestmark = pytest.mark.dist


def questions() -> list[dict[str, Any]]:
    """Of two to four choices, some too long for a row; more than ranks divide."""
    draw = random.Random(2)

    def text(least: int, most: int) -> list[int]:
        return [draw.randrange(4, 60) for _ in range(draw.randint(least, most))]

    asked = []
    for _ in range(21):
        choices = [text(1, 5) for _ in range(draw.randint(2, 4))]
        answer = draw.randrange(len(choices))
        asked.append({"prompt": text(3, LENGTH), "choices": choices, "answer": answer})
    return asked


def accuracy(model: Transformer, asked: list[dict[str, Any]]) -> float:
    """By whole texts, one after the other."""
    right = 0
    for question in asked:
        nats = []
        for choice in question["choices"]:
            ids = torch.tensor([*question["prompt"], *choice][-LENGTH - 1 :])
            hidden = model.hidden(ids[None, :-1])[0, -len(choice) :]
            found = token_logprobs(hidden, model.lm_head.weight, ids[-len(choice) :])
            nats.append(-float(found.sum()))
        right += nats.index(min(nats)) == question["answer"]
    return right / len(asked)


@pytest.mark.parametrize(
    "shape",
    [
        {"workers": 2, "zero": 3},
        {"workers": 2, "tensor": 2, "zero": 1},
        {"workers": 2, "pipeline": 2},
        {"workers": 2, "sequence": 2},
    ],
    ids=name,
)
def test_accuracy_is_one_processes(shape: Shape, tmp_path: Path) -> None:
    tokens, asked = ranks.write_tokens(tmp_path / "tokens"), questions()
    made = config(shape, steps=6)
    job = {
        "config": made.model_dump(mode="json"), "shape": model_shape().model_dump(), "seed": 5,
        "tokens": str(tokens / "train"), "heldout": str(tokens / "heldout"),
        "tasks": {"made": asked}, "scratch": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "board").mkdir()
    ranks.run(2, _train, job, str(tmp_path / "board"), log=tmp_path / "output", limit_s=300)
    metrics = json.loads((tmp_path / "board" / "report.json").read_text())["metrics"]
    model = Transformer(ModelConfig.model_validate(job["shape"])).eval()
    weights = find_checkpoints(tmp_path / "run" / "checkpoints")[-1].weights()
    model.load_state_dict(weights, strict=False)
    with torch.no_grad():
        assert metrics["accuracy/made"] == pytest.approx(accuracy(model, asked))


def _train(job: dict[str, Any], board: str) -> None:
    os.environ["RAYLM_BOARD"] = board
    train(job)
