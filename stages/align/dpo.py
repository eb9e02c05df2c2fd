"""dpo: a chat model and preference pairs -> a model that prefers as they do, without a judge."""

from __future__ import annotations

from pydantic import Field

from stages.stage import Stage, parent
from stages.tune.fine_tuning import FineTuning


class Config(FineTuning):
    """Direct preference optimisation (arXiv:2305.18290); `beta` is how near it stays to the start.

    `supervised` adds that much of the chosen answer's likelihood to the loss (arXiv:2404.19733),
    which keeps a small model from unlearning its answers while it learns to rank them.
    """

    model: str = parent("checkpoint")
    examples: str = parent("examples")
    beta: float = Field(default=0.1, gt=0)
    supervised: float = Field(default=0.0, ge=0)


STAGE = Stage(
    name="dpo", kind="checkpoint", version=1, config=Config, entry="stages.align.dpo_run:run"
)
