"""Verifier actors: many verdicts at once, on other cores than the one that asks.

Only these actors hold the expected answers of what they judge. An actor that dies or hangs is
replaced and its work repeated; what still fails is a verdict with `error=True`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.pool import ActorPool, Failure
from stages.tasks.problem import Problem
from stages.verify.sandbox import Limits
from stages.verify.verdict import Verdict, broken
from stages.verify.verifier import verify

Pair = tuple[Problem, str]


class VerifierActor:
    """One process with its own sandbox."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def verify_chunk(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Verdicts in the pairs' order."""
        return [verify(problem, completion, self.limits) for problem, completion in pairs]


class VerifierPool:
    """`size` verifier actors that are handed `chunk` pairs at a time. Needs a Ray session."""

    def __init__(
        self, size: int, *, limits: Limits | None = None, chunk: int = 32, cpus: float = 0.5
    ) -> None:
        self.limits = limits or Limits()
        self.chunk = chunk
        self.pool = ActorPool(
            VerifierActor,
            size,
            args=(self.limits,),
            options={"num_cpus": cpus, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}},
        )

    def verify_many(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict for each (problem, completion), in order."""
        chunks = [pairs[at : at + self.chunk] for at in range(0, len(pairs), self.chunk)]
        # Every completion may use up its time; the first also starts the sandbox.
        deadline_s = 60.0 + self.chunk * (self.limits.wall_s + 1.0)
        results = self.pool.map("verify_chunk", chunks, deadline_s=deadline_s)
        return list(_flatten(chunks, results))

    def close(self) -> None:
        """End the actors."""
        self.pool.close()

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flatten(chunks: Sequence[Sequence[Pair]], results: Sequence[object]) -> Iterator[Verdict]:
    for chunk, result in zip(chunks, results, strict=True):
        if isinstance(result, Failure):
            for _ in chunk:
                yield broken(f"the verifier failed {result.attempts} times: {result.reason}")
        else:
            assert isinstance(result, list)
            yield from result
