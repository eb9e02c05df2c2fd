"""Generated examples: a sample crawl, problems, conversations and preferences over one small world.

They are drawn from the recipe's seed, so that they have lineage, and byte for byte the same again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.stage import Stage, StageConfig, parent

MOST = 10_000_000
"""Of anything: they are generated in memory, from a world of a few hundred facts."""

What = Literal["crawl", "problems", "conversations", "preferences"]

KNOBS: dict[str, frozenset[str]] = {
    "crawl": frozenset(
        {"problems", "pages", "files", "chinese_share", "largest_number", "eval_problems"}
    ),
    "problems": frozenset(
        {"train_problems", "eval_problems", "task_shares", "chinese_share", "largest_number"}
    ),
    "conversations": frozenset(
        {"problems", "count", "heldout_share", "mixture", "task_shares", "requested_share",
         "chinese_share", "largest_number"}
    ),
    "preferences": frozenset(
        {"problems", "count", "heldout_share", "mixture", "task_shares", "sharpness",
         "chinese_share", "largest_number"}
    ),
}  # fmt: skip
"""Which fields each kind of examples takes."""


class Config(StageConfig):
    """What to generate and how much. Fields that `what` does not take are refused."""

    what: What
    problems: str | None = parent("examples", optional=True)
    """conversations, preferences: problems whose evaluation must not occur in them; crawl: problems
    whose evaluation is leaked in a few planted pages (default: those of the same seed)."""
    pages: int = Field(default=3600, ge=40, le=MOST)
    """crawl: pages in all, planted ones included."""
    files: int = Field(default=5, ge=1, le=10_000)
    """crawl: WARC files."""
    train_problems: int = Field(default=2400, ge=1, le=MOST)
    eval_problems: int = Field(default=240, ge=1, le=MOST)
    """problems: how many; crawl: how many there are to leak from."""
    count: int = Field(default=5000, ge=10, le=MOST)
    """conversations, preferences: how many, the held-out ones included."""
    heldout_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    mixture: dict[Literal["facts", "small_talk", "tasks"], float] = Field(
        default={"facts": 0.3, "small_talk": 0.1, "tasks": 0.6}
    )
    """conversations, preferences: relative shares of what the prompts are about."""
    task_shares: dict[Literal["arithmetic", "format", "code"], float] = Field(
        default={"arithmetic": 0.5, "format": 0.25, "code": 0.25}
    )
    requested_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """conversations: share of task answers in the form that was asked for."""
    sharpness: float = Field(default=1.5, gt=0.0)
    """preferences: how surely the reader picks the better answer (Bradley-Terry's scale)."""
    chinese_share: float = Field(default=0.25, ge=0.0, le=1.0)
    largest_number: int = Field(default=49, ge=30, le=99)
    """Largest operand of arithmetic."""

    @model_validator(mode="after")
    def _only_its_knobs(self) -> Config:
        given = self.model_fields_set - {"what"} - set(StageConfig.model_fields)
        foreign = sorted(given - KNOBS[self.what])
        if foreign:
            raise ValueError(
                f"examples of {self.what!r} do not take {', '.join(foreign)}; they take "
                f"{', '.join(sorted(KNOBS[self.what]))}"
            )
        for name in ("mixture", "task_shares"):
            shares = getattr(self, name)
            if min(shares.values(), default=0.0) < 0 or sum(shares.values()) <= 0:
                raise ValueError(f"{name} is {shares}; expected shares of 0 or more, not all 0")
        return self


STAGE = Stage(
    name="examples", kind="examples", version=2, config=Config, entry="stages.examples.run:run"
)
