"""Stage `evaluate`: what every model can do, with intervals, and whether each stage earned it.

Writes `scores.json` (per model: bits per byte, perplexity, pass@k, win rate, facts; the n-gram
model; the gates) and `samples.jsonl` (every model's answers to the same prompts).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.stage import Stage, StageConfig, execution, parent

Role = Literal[
    "pretrain",
    "sft",
    "sft_continued",
    "dpo",
    "ppo",
    "rlvr",
    "distill",
    "distill_alone",
    "quantize",
    "imported",
]


class EvaluateConfig(StageConfig):
    """Which models are measured, and how closely."""

    stage: Literal["evaluate"] = "evaluate"
    description: str = ""
    models: list[str] = parent("checkpoint", "quantized", many=True)
    tokens: str = parent("tokens")
    """Its held-out part measures perplexity; its training part trains the n-gram model."""
    problems: str | None = parent("examples", optional=True)
    """Problems with checkable answers; only those of split "eval" are asked."""
    preferences: str | None = parent("examples", optional=True)
    """Its held-out prompts are answered and compared by the true preference."""
    reward: str | None = parent("checkpoint", optional=True)
    """A reward model, for the gate on its accuracy."""
    corpus: str | None = parent("corpus", optional=True)
    """The corpus, for its certificate that no evaluation problem is left in it."""

    samples: int = Field(default=32, ge=1, le=1024)
    """Answers to each problem from the models of `full_pass_at_k` and from rlvr's direct parent."""
    samples_elsewhere: int = Field(default=4, ge=0, le=1024)
    """Answers to each problem from every other model; 0: none."""
    full_pass_at_k: tuple[Role, ...] = ("pretrain", "sft", "sft_continued", "ppo", "rlvr")
    problems_per_task: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, gt=0, le=2)
    max_new_tokens: int = Field(default=64, ge=1, le=4096)
    shots: int = Field(default=2, ge=0, le=16)
    """Worked examples before each problem for models that never saw chat turns."""
    preference_prompts: int = Field(default=64, ge=1)
    preference_samples: int = Field(default=4, ge=1, le=64)
    lm_eval: bool = True
    """Multiple-choice questions about the world's facts through lm-evaluation-harness."""
    facts: int = Field(default=100, ge=1)
    heldout_tokens: int = Field(default=16_000, ge=2)
    """Held-out tokens on which perplexity is measured, the same for all models."""
    sequence_length: int = Field(default=256, ge=4)
    overlap: int = Field(default=64, ge=1)
    """Tokens of context a window of a long document shares with the one before."""
    ngram_order: int = Field(default=5, ge=1, le=8)
    shown_answers: int = Field(default=12, ge=0)

    workers: int = execution(2, ge=0)
    """Actors that share the work; 0: this process, without Ray."""
    batch: int = execution(256, ge=1)
    """Answers sampled at once."""
    deadline_s: float = execution(1800.0, gt=0)
    """Longest that one measurement of one model may take."""


STAGE = Stage("evaluate", "scores", 1, EvaluateConfig, "stages.evaluate.run:run")
