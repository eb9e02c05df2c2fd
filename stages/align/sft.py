"""sft: a base model and conversations -> a model that answers. Loss on the answers only."""

from __future__ import annotations

from stages.stage import Stage, parent
from stages.tune.fine_tuning import FineTuning


class Config(FineTuning):
    """Supervised fine-tuning for `steps`, or for the FLOPs that the one in `compute_of` spent."""

    model: str = parent("checkpoint")
    examples: str = parent("examples")
    compute_of: str | None = parent("checkpoint", optional=True)


STAGE = Stage(
    name="sft", kind="checkpoint", version=2, config=Config, entry="stages.align.sft_run:run"
)
