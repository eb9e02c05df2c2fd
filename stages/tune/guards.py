"""When a step is not to be trusted: what all ranks skip, and when to go back.

Every rank sees the same numbers (each rank's loss, the loss and the gradient norm over all ranks)
and the same history of accepted steps, so all decide alike without another collective. The history
is part of the checkpoint: a resumed run decides as the undisturbed one.

A value is a spike where it stands out of the last accepted ones three ways at once: by robust
standard deviations (1.4826 times the median absolute deviation), by how far the largest of them
stands out, and by a plain factor. Heavy tails, rare sources and a falling loss are none; a flipped
bit, a corrupt batch or a diverging model is all three. The remedy after several in a row is
PaLM's (arXiv:2204.02311, section 5.1): back to a checkpoint before them, and other data from there.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from pydantic import Field, model_validator

from stages.stage import StageConfig

LOSS_FACTOR = 1.5
RANK_FACTOR = 2.0
NORM_FACTOR = 10.0
TAIL = 2.0


class Guards(StageConfig):
    """What counts as a spike, and how many untrusted steps in a row send the run back."""

    deviations: float = Field(default=10.0, gt=0)
    """Robust standard deviations above the median of the accepted steps."""
    window: int = Field(default=128, ge=8)
    """How many accepted steps are remembered."""
    warmup: int = Field(default=32, ge=2)
    """With fewer than this remembered, only NaN and Inf are refused: so also after the beginning of
    each phase of a mixture, where all is forgotten."""
    rollback_after: int = Field(default=5, ge=1)
    """So many refused steps in a row, and the run goes back to a checkpoint and skips the data."""
    rollbacks: int = Field(default=10, ge=0)
    """How often a run may go back; then it ends with an error."""

    @model_validator(mode="after")
    def _remembers_enough(self) -> Guards:
        if self.window < self.warmup:
            raise ValueError(
                f"guards.window is {self.window}, less than guards.warmup {self.warmup}: so few "
                "steps are remembered that none would ever be judged; raise window or lower warmup"
            )
        return self


@dataclass
class History:
    """The last accepted values of one quantity, and whether a new one is a spike."""

    settings: Guards
    factor: float
    """A spike is at least this times the median."""
    logarithmic: bool = False
    """Judge logarithms: for what is positive and skewed, like a norm."""
    values: deque[float] = field(default_factory=deque)

    def is_spike(self, value: float) -> bool:
        if len(self.values) < self.settings.warmup:
            return False
        new, old = value, list(self.values)
        if self.logarithmic:
            new, old = math.log(max(value, 1e-30)), [math.log(max(v, 1e-30)) for v in old]
        middle = statistics.median(old)
        spread = 1.4826 * statistics.median(abs(v - middle) for v in old)
        tail = TAIL * (max(old) - middle)
        above = math.log(self.factor) if self.logarithmic else (self.factor - 1) * abs(middle)
        return new > middle + max(self.settings.deviations * spread, tail, above)

    def add(self, value: float) -> None:
        self.values.append(value)
        if len(self.values) > self.settings.window:
            self.values.popleft()


class Guard:
    """Judges every step: `judge` its losses, `accepts` its norm, `count` what came of it.

    `reason` says why the step is refused; `refused` counts the refused ones in a row.
    """

    def __init__(
        self, settings: Guards, world: int, state: Mapping[str, Any] | None = None
    ) -> None:
        self.settings, self.world = settings, world
        self.loss = History(settings, LOSS_FACTOR)
        self.rank_loss = History(settings, RANK_FACTOR)
        self.norm = History(settings, NORM_FACTOR, logarithmic=True)
        self.refused = 0
        self.reason: str | None = None
        if state:
            self.refused = state["refused"]
            self.loss.values.extend(state["loss"])
            self.norm.values.extend(state["norm"])
            if state["world"] == world:  # another number of ranks has other extremes
                self.rank_loss.values.extend(state["rank_loss"])

    def forget(self) -> None:
        """Begin anew, as where other data begins, whose losses are no measure of those before."""
        for history in (self.loss, self.rank_loss, self.norm):
            history.values.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "refused": self.refused, "world": self.world, "loss": list(self.loss.values),
            "rank_loss": list(self.rank_loss.values), "norm": list(self.norm.values),
        }  # fmt: skip

    def judge(self, loss: float, by_rank: Mapping[int, float]) -> None:
        """Begin a step with these losses (nats per token, overall and by rank).

        A rank without a predicted token says nothing: leave it out of `by_rank`.
        """
        self.reason = self._odd_loss(loss, by_rank)

    def accepts(self, norm: float) -> bool:
        """Whether the step may be taken, now that the norm of its gradient is known."""
        self.reason = self.reason or self._odd_norm(norm)
        return self.reason is None

    def _odd_loss(self, loss: float, by_rank: Mapping[int, float]) -> str | None:
        for rank, value in by_rank.items():
            if not math.isfinite(value):
                return f"the loss of rank {rank} is {value}"
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if by_rank and self.rank_loss.is_spike(max(by_rank.values())):
            rank = max(by_rank, key=by_rank.__getitem__)
            usual = statistics.median(self.rank_loss.values)
            return (
                f"the loss of rank {rank} is {by_rank[rank]:.4g}, the highest of all ranks' is "
                f"usually {usual:.4g}"
            )
        if self.loss.is_spike(loss):
            return f"the loss is {loss:.4g}, usually {statistics.median(self.loss.values):.4g}"
        return None

    def _odd_norm(self, norm: float) -> str | None:
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        if self.norm.is_spike(norm):
            usual = statistics.median(self.norm.values)
            return f"the gradient norm is {norm:.4g}, usually {usual:.4g}"
        return None

    def count(self, loss: float, by_rank: Mapping[int, float], norm: float, taken: bool) -> None:
        """Remember a step that was taken; count one that was not."""
        if not taken:
            self.refused += 1
            self.reason = self.reason or "a gradient is not finite"
            return
        self.refused = 0
        self.loss.add(loss)
        self.norm.add(norm)
        if by_rank:
            self.rank_loss.add(max(by_rank.values()))

    @property
    def must_go_back(self) -> bool:
        return self.refused >= self.settings.rollback_after


class Skip(TypedDict):
    """Steps [first, last], left behind when the run went back to the checkpoint of step `first`:
    taken anew, they and all that follow have other data than these had.
    """

    first: int
    last: int


def passed_by(step: int, skips: Sequence[Skip]) -> list[tuple[int, int]]:
    """The steps [begin, end) whose data a step has behind it besides that of the steps before it:
    of all skips, in the order they came about, up to the last one that went back to it or further.
    """
    count = max((n for n, skip in enumerate(skips, 1) if skip["first"] <= step), default=0)
    return [(skip["first"], skip["last"] + 1) for skip in skips[:count]]
