"""The verdict on one completion, and what is *not* a verdict.

A wrong answer is a verdict (`passed=False`). A verifier that could not do its work (its sandbox
died, its actor was lost) is not: `error=True`, and whoever reads it leaves the sample out instead
of punishing it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`score` is in [0, 1] (the fraction of test cases for code); `reason` is a short sentence."""

    passed: bool
    score: float
    reason: str
    error: bool = False


def right(reason: str = "correct") -> Verdict:
    """A passed verdict."""
    return Verdict(True, 1.0, reason)


def wrong(reason: str, score: float = 0.0) -> Verdict:
    """A failed verdict with its reason."""
    return Verdict(False, score, reason)


def broken(reason: str) -> Verdict:
    """No verdict: the verifier itself failed."""
    return Verdict(False, 0.0, reason, error=True)
