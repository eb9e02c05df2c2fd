"""Reinforcement learning from verifiable rewards: the model is paid for what a verifier passes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.stage import Stage, StageConfig, duration, execution, parent


class Config(StageConfig):
    """Group-relative policy gradient on problems with checkable answers."""

    model: str = parent("checkpoint")
    problems: str = parent("examples")
    steps: int = duration(ge=1)
    tasks: list[Literal["arithmetic", "format", "code"]] = Field(
        default=["arithmetic", "format", "code"], min_length=1
    )
    prompts_per_step: int = Field(default=32, ge=1)
    samples_per_prompt: int = Field(default=8, ge=2)
    max_new_tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    partial_credit: bool = False
    """Pay the verdict's score (the share of rules or test cases) instead of pass or fail."""
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_updates: int = Field(default=8, ge=0)
    """Optimizer steps over which the learning rate rises; it stays constant after."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=1, ge=1)
    minibatches: int = Field(default=2, ge=1)
    """Optimizer steps per epoch."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.28, gt=0)
    normalize_advantages: bool = False
    """Divide by the group's standard deviation (GRPO) or not (Dr. GRPO)."""
    aggregation: Literal["token", "sequence", "constant"] = "token"
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the KL to the parent in the loss; 0: none, and no copy of the parent is kept."""
    commit_every: int = execution(10, ge=1)
    workers: int = execution(2, ge=1)
    """Rollout actors."""
    verifiers: int = execution(1, ge=1)
    """Verifier actors."""
    threads: int = execution(2, ge=1)
    """CPU threads of the learner, and of all rollout actors together."""


STAGE = Stage("rlvr", "checkpoint", 1, Config, "stages.rlvr.run:run")
