"""Sets of problems: the tasks' shares, two languages, two splits, no prompt twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from stages.tasks import arithmetic, code, format
from stages.tasks.problem import Problem


def draw_problem(
    random: Random, task: str, *, split: str, language: str, largest: int = 99
) -> Problem:
    """A problem of `task` and `split`; `largest` bounds arithmetic's numbers."""
    if task == "arithmetic":
        return arithmetic.draw_problem(random, split=split, language=language, largest=largest)
    if task == "format":
        return format.draw_problem(random, split=split, language=language)
    if task == "code":
        return code.draw_problem(random, split=split, language=language)
    raise ValueError(f"there is no task {task!r}; expected arithmetic, format or code")


def draw_problems(
    seed: int,
    *,
    split: str,
    counts: Mapping[str, int],
    chinese_share: float = 0.25,
    largest: int = 99,
) -> list[Problem]:
    """`counts[task]` different problems of each task, shuffled, with ids such as "eval-code-0007".

    Raises ValueError when there are not that many different ones.
    """
    problems: list[Problem] = []
    for task, count in counts.items():
        random = Random(f"problems {split} {task} {seed}")  # fewer are the first of more
        seen: set[str] = set()
        for _ in range(count * 20):
            if len(seen) == count:
                break
            language = "zh" if random.random() < chinese_share else "en"
            problem = draw_problem(random, task, split=split, language=language, largest=largest)
            if problem.prompt not in seen:
                problems.append(replace(problem, id=f"{split}-{task}-{len(seen):04d}"))
                seen.add(problem.prompt)
        if len(seen) < count:
            raise ValueError(
                f"found {len(seen)} different {task} problems for {split}, {count} were asked for; "
                "ask for fewer or allow larger numbers"
            )
    Random(f"order {split} {seed}").shuffle(problems)
    return problems
