"""Stage `report`: one page over a run, for people (`report.html`) and machines (`report.json`)."""

from __future__ import annotations

from typing import Literal

from stages.stage import Stage, StageConfig, parent

KINDS = (
    "corpus",
    "tokenizer",
    "tokens",
    "examples",
    "checkpoint",
    "quantized",
    "scores",
)


class ReportConfig(StageConfig):
    """What the page tells of."""

    stage: Literal["report"] = "report"
    description: str = ""
    stages: list[str] = parent(*KINDS, many=True)
    """Every stage of the run, in its order."""
    scores: str | None = parent("scores", optional=True)
    """Whose gates, scores and sample answers are shown."""
    title: str = "raylm run"


STAGE = Stage("report", "report", 2, ReportConfig, "stages.report.run:run")
