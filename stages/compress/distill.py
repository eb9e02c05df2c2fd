"""distill: a model cut to fewer layers, trained on conversations to predict as its teacher does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.stage import Stage, parent
from stages.tune.fine_tuning import FineTuning


class Config(FineTuning):
    """Keeps `layers` evenly spaced layers of `model` and trains them on `examples`.

    The loss is `alpha` times the KL divergence from the teacher's next-token distribution at
    `temperature` (Hinton et al., arXiv:1503.02531, with its factor T²), the rest the answers' own
    likelihood. Without a teacher it is that likelihood alone: the same student by itself, the
    control that `compute_of` gives the same FLOPs.

    `answers: teacher` replaces the answers in the examples by the teacher's most likely ones, up to
    `max_new_tokens` long (sequence-level distillation, arXiv:1606.07947): what a teacher learned
    after its own supervised stage is in no example, only in what it says.
    """

    model: str = parent("checkpoint")
    examples: str = parent("examples")
    teacher: str | None = parent("checkpoint", optional=True)
    compute_of: str | None = parent("checkpoint", optional=True)
    layers: int = Field(ge=1)
    temperature: float = Field(default=1.0, gt=0)
    answers: Literal["given", "teacher"] = "given"
    max_new_tokens: int = Field(default=64, ge=1)
    alpha: float = Field(default=0.7, gt=0, le=1)

    @model_validator(mode="after")
    def _someone_answers(self) -> Config:
        if self.answers == "teacher" and self.teacher is None:
            raise ValueError("answers is teacher, but there is none: name a teacher")
        return self


STAGE = Stage(
    name="distill",
    kind="checkpoint",
    version=2,
    config=Config,
    entry="stages.compress.distill_run:run",
)
