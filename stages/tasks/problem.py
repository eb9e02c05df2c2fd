"""A problem with a checkable answer, and how a file of them is read and written.

`verifier` says how a completion is judged; the answers in it never enter a sandbox or a prompt:

* `{"kind": "number", "answer": "85"}`: the completion's final number equals the answer;
* `{"kind": "constraint", "rules": [...]}`: every rule holds of the stripped completion (`format.py`
  lists the rules);
* `{"kind": "code", "function": "f", "cases": [{"arguments": [3], "expected": 10}, ...]}`: the
  function, called with each case's arguments, returns the expected value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.errors import UserError

SPLITS = ("train", "eval")


@dataclass(frozen=True)
class Problem:
    """One problem: what is asked, a reference response that passes, and how to judge another."""

    id: str
    task: str
    language: str
    prompt: str
    solution: str
    verifier: dict[str, Any]
    operands: str
    """The operands' key (`split.operands_key`): two problems with one key are of one split."""
    split: str


def write_problems(path: Path, problems: Iterable[Problem]) -> int:
    """Write problems as JSONL, one object a line; returns how many."""
    lines = [json.dumps(asdict(problem), ensure_ascii=False) for problem in problems]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def read_problems(path: Path, split: str | None = None) -> list[Problem]:
    """The problems in `path`, a JSONL file or a folder with `problems.jsonl`; of one split or all.

    Raises UserError naming the line that is not a problem.
    """
    file = path / "problems.jsonl" if path.is_dir() else path
    if not file.exists():
        raise UserError(
            f"{file} does not exist; expected the problems.jsonl of an examples artifact"
        )
    problems = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            problem = Problem(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(
                f"{file} line {number} is not a problem ({error}); expected a JSON object with "
                f"the keys {', '.join(Problem.__dataclass_fields__)}"
            ) from error
        if split is None or problem.split == split:
            problems.append(problem)
    return problems
