"""No problem of the evaluation is ever trained on, and the order is arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.rlvr.problems import problems_of_step, training_problems
from stages.tasks.generate import draw_problems
from stages.tasks.problem import Problem, write_problems
from stages.tasks.split import split_of

COUNTS = {"arithmetic": 20, "format": 20, "code": 20}
TRAIN = draw_problems(3, split="train", counts=COUNTS)
EVAL = draw_problems(3, split="eval", counts=COUNTS)


def write(folder: Path, problems: list[Problem]) -> Path:
    write_problems(folder / "problems.jsonl", problems)
    return folder


def test_only_training_problems_are_taken(tmp_path: Path) -> None:
    chosen = training_problems(write(tmp_path, TRAIN + EVAL), ["arithmetic", "code"])
    assert chosen == [problem for problem in TRAIN if problem.task != "format"]
    for problem in chosen:
        assert problem.split == "train"
        operands = [int(part) if part.isdigit() else part for part in problem.operands.split("|")]
        assert split_of(operands) == "train"


@pytest.mark.parametrize(
    "leak",
    [
        replace(EVAL[0], id="leak", split="train", prompt="asked in other words"),
        replace(TRAIN[0], id="leak", prompt=EVAL[0].prompt),
    ],
)
def test_a_leak_of_the_evaluation_stops_the_run(tmp_path: Path, leak: Problem) -> None:
    folder = write(tmp_path, [*TRAIN, *EVAL, leak])
    with pytest.raises(UserError, match=r"share operands or prompt with held-out ones \(first: le"):
        training_problems(folder, list(COUNTS))


def test_no_training_problem_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no problem of split 'train' for code"):
        training_problems(write(tmp_path, EVAL), ["code"])


def test_steps_go_through_all_problems_in_a_seeded_order() -> None:
    steps = [problems_of_step(TRAIN, step, 20, seed=5) for step in (1, 2, 3)]
    assert {problem.id for step in steps for problem in step} == {problem.id for problem in TRAIN}
    assert problems_of_step(TRAIN, 2, 20, seed=5) == steps[1]
    assert problems_of_step(TRAIN, 2, 20, seed=6) != steps[1]
    assert problems_of_step(TRAIN, 4, 20, seed=5) != steps[0]


def test_a_step_holds_no_problem_twice() -> None:
    for step in range(1, 12):
        chosen = problems_of_step(TRAIN[:7], step, 5, seed=1)
        assert len({problem.id for problem in chosen}) == 5
    assert len(problems_of_step(TRAIN[:7], 1, 50, seed=1)) == 7
