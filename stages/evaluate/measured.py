"""What evaluate knows of each model: its place in the lineage, and what was measured of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.artifact import Artifact
from stages.evaluate.heldout import TextCost
from stages.evaluate.intervals import Interval, bootstrap_mean, wilson
from stages.evaluate.pass_at_k import curve, curves_by_task, pass_at_k


@dataclass(frozen=True)
class Tally:
    """Samples of one problem: how many, and how many passed."""

    task: str
    samples: int
    correct: int
    errors: int = 0
    """Samples without a verdict (the verifier failed, not the answer): not among `samples`."""


@dataclass
class Measured:
    """One model and its measurements; what was not asked for stays empty."""

    name: str
    id: str
    stage: str
    role: str
    parent: str
    """Artifact id of the model it was trained from or quantized from; "" for a base."""
    text: TextCost | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    """Problem id -> tally."""
    preferences: list[list[float]] = field(default_factory=list)
    """True preference of every sampled answer to every held-out prompt."""
    facts: list[float] = field(default_factory=list)
    """1 or 0 for every multiple-choice question."""

    def pass_at_1(self) -> dict[str, float]:
        """Problem id -> share of its samples that passed."""
        return {
            problem: pass_at_k(tally.samples, tally.correct, 1)
            for problem, tally in self.tallies.items()
            if tally.samples
        }

    def summary(self, seed: int) -> dict[str, Any]:
        """The model's entry of scores.json."""
        entry: dict[str, Any] = {
            "id": self.id,
            "stage": self.stage,
            "role": self.role,
            "parent": self.parent,
        }
        if self.text is not None:
            entry["bits_per_byte"] = self.text.bits_per_byte(seed)
            entry["perplexity"] = self.text.perplexity()
        if self.tallies:
            by_task: dict[str, list[tuple[int, int]]] = defaultdict(list)
            for tally in self.tallies.values():
                if tally.samples:
                    by_task[tally.task].append((tally.samples, tally.correct))
            every = [pair for pairs in by_task.values() for pair in pairs]
            entry["pass_at_k"] = curve(every, seed)
            entry["pass_at_k_by_task"] = curves_by_task(by_task, seed)
            entry["samples"] = sum(samples for samples, _ in every)
            entry["problems"] = len(every)
            entry["verifier_errors"] = sum(tally.errors for tally in self.tallies.values())
        if self.preferences:
            entry["true_preference"] = bootstrap_mean(
                [float(np.mean(scores)) for scores in self.preferences], seed
            )
        if self.facts:
            entry["facts_accuracy"] = wilson(sum(self.facts), len(self.facts))
        return entry


def role_of(artifact: Artifact) -> str:
    """The stage's name, told apart where one stage plays two parts.

    "sft_continued" is SFT on another stage's compute; "distill_alone" has no teacher.
    """
    parents = artifact.manifest.parents
    if artifact.stage == "sft" and parents.get("compute_of"):
        return "sft_continued"
    if artifact.stage == "distill" and not parents.get("teacher"):
        return "distill_alone"
    return artifact.stage


def parent_of(artifact: Artifact) -> str:
    """Artifact id of the model this one began from, or ""."""
    return next(iter(artifact.manifest.parents.get("model", [])), "")


def win_rate(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], seed: int
) -> Interval:
    """How often an answer of ours is truly preferred to one of theirs to the same prompt.

    All pairs of samples of a prompt count, ties half; the interval redraws prompts.
    """
    wins = []
    for mine, other in zip(ours, theirs, strict=True):
        difference = np.subtract.outer(np.asarray(mine), np.asarray(other))
        wins.append(float((difference > 0).mean() + 0.5 * (difference == 0).mean()))
    return bootstrap_mean(wins, seed)
