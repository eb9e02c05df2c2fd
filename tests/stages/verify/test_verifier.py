"""The door to the verifiers: solutions pass, neighbours' do not, errors are no verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.tasks.generate import draw_problems
from stages.tasks.problem import Problem, write_problems
from stages.verify.sandbox import SandboxFailure
from stages.verify.verifier import verify, verify_jsonl

PROBLEMS = draw_problems(5, split="train", counts={"arithmetic": 20, "format": 20, "code": 20})


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_reference_solutions_pass(problem: Problem) -> None:
    verdict = verify(problem, problem.solution)
    assert verdict.passed, verdict.reason
    assert verdict.score == 1.0


@pytest.mark.parametrize("task", ["arithmetic", "format", "code"])
def test_another_problems_solution_does_not_pass(task: str) -> None:
    one, *others = [problem for problem in PROBLEMS if problem.task == task]
    for other in others:
        if other.verifier != one.verifier:
            assert not verify(one, other.solution).passed


def test_a_broken_sandbox_is_an_error_and_not_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise SandboxFailure("no zygote")

    monkeypatch.setattr("stages.verify.verifier.verify_code", fail)
    verdict = verify(next(p for p in PROBLEMS if p.task == "code"), "def f(x): return x")
    assert verdict.error and not verdict.passed and "no zygote" in verdict.reason


def test_malformed_verifiers_are_refused() -> None:
    with pytest.raises(ValueError, match="verifier 'poem'; known: number, constraint, code"):
        verify(replace(PROBLEMS[0], verifier={"kind": "poem"}), "x")
    with pytest.raises(ValueError, match="lacks its key 'answer'"):
        verify(replace(PROBLEMS[0], verifier={"kind": "number"}), "x")


def test_verdicts_for_a_file_of_completions(tmp_path: Path) -> None:
    write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    lines = [{"id": p.id, "completion": p.solution} for p in PROBLEMS[:10]]
    lines.append({"id": PROBLEMS[0].id, "completion": "?"})
    completions = tmp_path / "completions.jsonl"
    completions.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    result = verify_jsonl(tmp_path, completions)
    assert (result["count"], result["passed"], result["errors"]) == (11, 10, 0)
    assert sum(task["count"] for task in result["by_task"].values()) == 11
    assert result["verdicts"][10]["passed"] is False


def test_bad_files_are_named(tmp_path: Path) -> None:
    write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    file = tmp_path / "completions.jsonl"
    with pytest.raises(UserError, match="does not exist"):
        verify_jsonl(tmp_path, file)
    file.write_text('{"id": "x"}\n')
    with pytest.raises(UserError, match="line 1 is not a completion"):
        verify_jsonl(tmp_path, file)
    file.write_text('{"id": "x", "completion": ""}\n')
    with pytest.raises(UserError, match="line 1: there is no problem 'x'"):
        verify_jsonl(tmp_path, file)
    with pytest.raises(UserError, match="no problem of task 'poem'"):
        verify_jsonl(tmp_path, file, task="poem")
