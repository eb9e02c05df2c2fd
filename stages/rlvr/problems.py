"""Which problems are trained on, and in which order: never one of the evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from cluster.errors import UserError
from stages.tasks.problem import Problem, read_problems


def training_problems(path: Path, tasks: Collection[str]) -> list[Problem]:
    """The problems of split "train" of these tasks.

    A training problem that shares its prompt, or its task and operands, with one of another split
    is a UserError: what is measured later would have been trained on.
    """
    problems = [problem for problem in read_problems(path) if problem.task in tasks]
    chosen = [problem for problem in problems if problem.split == "train"]
    if not chosen:
        raise UserError(
            f"{path} has no problem of split 'train' for {', '.join(sorted(tasks))}; expected an "
            "examples artifact of problems with both splits"
        )
    held_out = [problem for problem in problems if problem.split != "train"]
    operands = {(problem.task, problem.operands) for problem in held_out}
    prompts = {problem.prompt for problem in held_out}
    leaked = [p for p in chosen if (p.task, p.operands) in operands or p.prompt in prompts]
    if leaked:
        raise UserError(
            f"{len(leaked)} training problems of {path} share operands or prompt with held-out "
            f"ones (first: {leaked[0].id}); make the problems again so that the splits are apart"
        )
    return chosen


def problems_of_step(
    problems: Sequence[Problem], step: int, count: int, seed: int
) -> list[Problem]:
    """The problems of a step (from 1): shuffled passes over all, a pure function of (seed, step).

    `count` of them, all different; all problems where there are fewer.
    """
    chosen: dict[int, Problem] = {}
    orders: dict[int, np.ndarray] = {}
    position = (step - 1) * count
    while len(chosen) < min(count, len(problems)):
        turn, offset = divmod(position, len(problems))
        if turn not in orders:
            orders[turn] = np.random.default_rng([seed, turn]).permutation(len(problems))
        index = int(orders[turn][offset])
        chosen.setdefault(index, problems[index])
        position += 1
    return list(chosen.values())
