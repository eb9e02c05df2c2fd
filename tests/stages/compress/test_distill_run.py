"""Distillation: its loss against float64 formulas, the cut of layers, and a run of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import UserError
from model import pretrained
from model.tokenizer import Tokenizer
from tests.stages.small import sums, write_examples, write_model


def test_the_loss_is_the_formula() -> None:
    from stages.compress.distill_run import distillation_loss

    torch.manual_seed(0)
    student, teacher = torch.randn(7, 11), torch.randn(7, 11)
    labels = torch.randint(11, (7,))
    p = (teacher.double() / 2).softmax(-1)
    q = (student.double() / 2).softmax(-1)
    divergence = (p * (p / q).log()).sum(-1).mean()
    likelihood = -student.double().softmax(-1).log()[torch.arange(7), labels].mean()
    expected = 0.3 * 4 * divergence + 0.7 * likelihood
    loss = distillation_loss(student, teacher, labels, alpha=0.3, temperature=2.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    nothing = distillation_loss(teacher, teacher, labels, alpha=1.0, temperature=1.0)
    assert nothing.item() == pytest.approx(0, abs=1e-6)


def _run(folder: Path, teacher: bool, **fields: Any) -> dict[str, Any]:
    from stages.compress import distill_run

    config = distill_run.Config.model_validate(
        {"model": "m", "examples": "e", "layers": 1, "steps": 10, "batch_rows": 8,
         "sequence_length": 64, "learning_rate": 1e-2, **fields}
    )  # fmt: skip
    said: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill_run, "report", lambda metrics, *_: said.append(metrics))
        distill_run.train(
            {"config": config.model_dump(mode="json"), "model": str(folder / "model"),
             "examples": str(folder / "examples"), "scratch": str(folder / f"run{teacher}"),
             "seed": 3, "flops_budget": None, "teacher": str(folder / "model") if teacher else None}
        )  # fmt: skip
    return said[-1]


def test_a_student_of_one_layer_learns_with_and_without_a_teacher(
    tmp_path: Path, one_rank: Path
) -> None:
    start = pretrained.load(write_model(tmp_path / "model"))
    write_examples(tmp_path / "examples")
    taught, alone = _run(tmp_path, teacher=True), _run(tmp_path, teacher=False)
    student = pretrained.load(tmp_path / "runTrue" / "model")
    assert student.config.num_hidden_layers == 1
    assert taught["parameters"] == alone["parameters"] == student.config.parameters()
    per_token = 6 * student.config.parameters() + 2 * start.config.parameters()
    assert taught["flops"] == per_token * taught["tokens"]
    assert alone["flops"] == 6 * alone["parameters"] * alone["tokens"]
    assert alone["heldout_loss"] < taught["heldout_loss"]  # its teacher here knows nothing


def test_more_layers_than_there_are_is_the_users_error(tmp_path: Path, one_rank: Path) -> None:
    write_model(tmp_path / "model")
    write_examples(tmp_path / "examples")
    with pytest.raises(UserError, match="layers is 3, but the model to be cut has 2"):
        _run(tmp_path, teacher=False, layers=3)


def test_a_student_learns_the_teachers_answers(tmp_path: Path, one_rank: Path) -> None:
    """The teacher's greedy words, found here one forward pass a token, stand where others did."""
    from stages.compress.teacher_answers import answered

    teacher = pretrained.load(write_model(tmp_path / "model"))
    tokenizer = Tokenizer.load(tmp_path / "model")
    rows = [{"messages": row["messages"]} for row in sums(6, 3)]
    found, flops = answered(rows, str(tmp_path / "model"), max_new_tokens=24)
    assert flops > 0 and len(found) == len(rows)
    for row, given in zip(found, rows, strict=True):
        assert row["messages"][:-1] == given["messages"][:-1]
        prompt, _ = tokenizer.encode_chat(given["messages"][:-1], add_generation_prompt=True)
        ids = list(prompt)
        while (len(ids) < len(prompt) + 24 and ids[-1] not in tokenizer.stop_ids) or ids == prompt:
            with torch.no_grad():
                ids.append(int(teacher(torch.tensor([ids]))[0, -1].argmax()))
        expected = given["messages"][-1]["content"]
        if ids[-1] in tokenizer.stop_ids:
            expected = tokenizer.decode(ids[len(prompt) : -1])
        assert row["messages"][-1] == {"role": "assistant", "content": expected}


def test_answers_of_no_teacher_are_refused() -> None:
    from stages.compress.distill import Config

    with pytest.raises(ValueError, match="answers is teacher, but there is none"):
        Config.model_validate({"model": "m", "examples": "e", "layers": 1, "answers": "teacher"})
