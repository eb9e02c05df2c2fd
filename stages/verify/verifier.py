"""One door to all verifiers: a problem and a completion in, a verdict out."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from stages.tasks.problem import Problem, read_problems
from stages.verify.code import verify_code
from stages.verify.constraint import verify_constraint
from stages.verify.number import verify_number
from stages.verify.sandbox import Limits, Sandbox, SandboxFailure
from stages.verify.verdict import Verdict, broken


@functools.cache
def _sandbox_of(process: int, limits: Limits) -> Sandbox:
    return Sandbox(limits)


def verify(problem: Problem, completion: str, limits: Limits | None = None) -> Verdict:
    """The verdict on one completion. Code runs in this process's sandbox, the rest in place.

    An infrastructure failure is a verdict with `error=True`; a malformed verifier in the problem
    raises ValueError.
    """
    verifier: dict[str, Any] = problem.verifier
    try:
        match verifier["kind"]:
            case "number":
                return verify_number(verifier["answer"], completion)
            case "constraint":
                return verify_constraint(verifier["rules"], completion)
            case "code":
                sandbox = _sandbox_of(os.getpid(), limits or Limits())
                return verify_code(verifier["function"], verifier["cases"], completion, sandbox)
            case kind:
                raise ValueError(
                    f"problem {problem.id} asks for verifier {kind!r}; known: number, constraint, "
                    "code"
                )
    except KeyError as error:
        raise ValueError(f"the verifier of problem {problem.id} lacks its key {error}") from error
    except SandboxFailure as failure:
        return broken(str(failure))


def verify_jsonl(problems: Path, completions: Path, task: str | None = None) -> dict[str, Any]:
    """Verdicts for a JSONL file of completions, lines of {"id": problem id, "completion": text}.

    `problems` is a problems.jsonl or a folder with one; `task` keeps only that task's. Returns
    {"verdicts": [{"id", "passed", "score", "reason", "error"}, ...] in the file's order, "count",
    "passed", "errors", "by_task": {task: {"count", "passed"}}}.
    """
    known = {p.id: p for p in read_problems(problems) if task is None or p.task == task}
    if not known:
        raise UserError(f"{problems} has no problem of task {task!r}")
    verdicts = []
    counts: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for number, (identity, completion) in enumerate(_read_completions(completions), start=1):
        if identity not in known:
            raise UserError(
                f"{completions} line {number}: there is no problem {identity!r} in {problems}"
                + (f" for task {task!r}" if task else "")
            )
        verdict = verify(known[identity], completion)
        verdicts.append({"id": identity, **vars(verdict)})
        if not verdict.error:
            counts[known[identity].task] += 1
            passes[known[identity].task] += verdict.passed
    return {
        "verdicts": verdicts,
        "count": sum(counts.values()),
        "passed": sum(passes.values()),
        "errors": sum(1 for verdict in verdicts if verdict["error"]),
        "by_task": {name: {"count": counts[name], "passed": passes[name]} for name in counts},
    }


def _read_completions(file: Path) -> Sequence[tuple[str, str]]:
    """(problem id, completion) of each line; a UserError names the first line that is neither."""
    if not file.is_file():
        raise UserError(f"{file} does not exist; expected a JSONL file of completions")
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            pairs.append((str(entry["id"]), str(entry["completion"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{file} line {number} is not a completion ({error!r}); expected {{"id": problem '
                'id, "completion": text}}'
            ) from error
    return pairs
