"""reward: a chat model and preference pairs -> a model that scores answers."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, parent
from stages.tune.fine_tuning import FineTuning


class Config(FineTuning):
    """Bradley-Terry training of a one-number head on the model (arXiv:2203.02155).

    `centre` pulls the mean score to zero (arXiv:2312.09244).
    """

    model: str = parent("checkpoint")
    examples: str = parent("examples")
    centre: float = Field(default=0.01, ge=0)


STAGE = Stage(
    name="reward", kind="checkpoint", version=1, config=Config, entry="stages.align.reward_run:run"
)
