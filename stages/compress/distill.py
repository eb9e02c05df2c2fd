"""distill: a model cut to fewer layers, trained on conversations to predict as its teacher does."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, parent
from stages.tune.fine_tuning import FineTuning


class Config(FineTuning):
    """Keeps `layers` evenly spaced layers of `model` and trains them on `examples`.

    The loss is `alpha` times the KL divergence from the teacher's next-token distribution at
    `temperature` (Hinton et al., arXiv:1503.02531, with its factor T²), the rest the answers' own
    likelihood. Without a teacher it is that likelihood alone: the same student by itself, the
    control that `compute_of` gives the same FLOPs.
    """

    model: str = parent("checkpoint")
    examples: str = parent("examples")
    teacher: str | None = parent("checkpoint", optional=True)
    compute_of: str | None = parent("checkpoint", optional=True)
    layers: int = Field(ge=1)
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=0.7, gt=0, le=1)


STAGE = Stage(
    name="distill",
    kind="checkpoint",
    version=1,
    config=Config,
    entry="stages.compress.distill_run:run",
)
