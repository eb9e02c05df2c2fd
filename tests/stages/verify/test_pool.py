"""Verifier actors: order, parallel code runs, and a killed actor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ray

from stages.tasks.generate import draw_problems
from stages.verify.pool import VerifierPool

pytestmark = [pytest.mark.dist, pytest.mark.usefixtures("ray_session")]

PROBLEMS = draw_problems(6, split="train", counts={"arithmetic": 30, "format": 30, "code": 30})


def test_verdicts_come_in_order() -> None:
    pairs = [(p, p.solution if n % 2 else "?") for n, p in enumerate(PROBLEMS)]
    with VerifierPool(2, chunk=8, cpus=0.1) as pool:
        verdicts = pool.verify_many(pairs)
        assert [verdict.passed for verdict in verdicts] == [bool(n % 2) for n in range(len(pairs))]
        assert not any(verdict.error for verdict in verdicts)
        assert pool.verify_many([]) == []


def test_a_killed_actor_costs_no_verdict() -> None:
    pairs = [(problem, problem.solution) for problem in PROBLEMS]
    with VerifierPool(2, chunk=8, cpus=0.1) as pool:
        pool.verify_many(pairs[:16])
        ray.kill(pool.pool.actors[0])
        assert all(verdict.passed for verdict in pool.verify_many(pairs))
        assert pool.pool.restarts >= 1


def test_what_no_actor_can_judge_is_an_error_and_not_a_wrong_answer() -> None:
    malformed = replace(PROBLEMS[0], verifier={"kind": "poem"})
    with VerifierPool(1, chunk=1, cpus=0.1) as pool:
        bad, good = pool.verify_many([(malformed, "x"), (PROBLEMS[1], PROBLEMS[1].solution)])
    assert bad.error and not bad.passed and "'poem'" in bad.reason
    assert good.passed and not good.error
