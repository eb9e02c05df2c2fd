"""Proximal policy optimization against a reward model, on Ray actors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.stage import Stage, StageConfig, duration, execution, parent


class Config(StageConfig):
    """PPO (arXiv:1707.06347) with a KL penalty to the starting policy (arXiv:2203.02155)."""

    model: str = parent("checkpoint")
    reward: str = parent("checkpoint")
    examples: str = parent("examples")
    """Preferences; only their prompts are used."""
    steps: int = duration(ge=1)
    prompts_per_step: int = Field(default=32, ge=1)
    samples_per_prompt: int = Field(default=4, ge=1)
    max_new_tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    kl_coefficient: float = Field(default=0.05, ge=0)
    """What a nat of KL to the starting policy costs, in units of reward, token by token."""
    unfinished_penalty: float = Field(default=1.0, ge=0)
    """Taken from the reward of a response that ran out of length."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_clip: float = Field(default=0.5, gt=0)
    epochs: int = Field(default=2, ge=1)
    minibatches: int = Field(default=2, ge=1)
    """Optimizer steps per epoch."""
    learning_rate: float = Field(default=2e-4, gt=0)
    value_learning_rate: float = Field(default=3e-3, gt=0)
    """Of the value head, which starts as a copy of the reward model's score."""
    warmup_updates: int = Field(default=8, ge=0)
    """Optimizer steps over which the learning rate rises; it stays constant after."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    aggregation: Literal["token", "sequence", "constant"] = "token"
    measure_prompts: int = Field(default=64, ge=1)
    """Held-out prompts on which the mean reward is measured before and after."""
    commit_every: int = execution(10, ge=1)
    workers: int = execution(2, ge=1)
    """Rollout actors."""
    threads: int = execution(2, ge=1)
    """CPU threads of the learner, and of all rollout actors together."""


STAGE = Stage("ppo", "checkpoint", 1, Config, "stages.align.ppo_run:run")
