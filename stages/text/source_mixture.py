"""What a training reads of the sources within its tokens: weights or epochs, phases and caps.

    sources:
      max_epochs: 4
      phases:
        - {share: 0.9, weights: {"*": 1.0}}                          # every source by its size
        - {share: 0.1, weights: {books: 0.7, crawl: 0.3}}            # the annealing phase
        - or, instead of a weight, epochs: {books: 2}                # so many passes, exactly

Only the schema is here; `stages.text.data_plan` turns it into an order of samples.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

REST = "*"
"""In weights: every source that the phase does not name, shared out by size."""


class SourcePhase(BaseModel):
    """A stretch of the run with one mixture. A source that is not named is not read in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the run's steps; the phases' shares make 1."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Source -> its part of what `epochs` leaves; any positive numbers."""
    epochs: dict[str, float] = Field(default_factory=dict)
    """Source -> passes over it in this phase."""

    @model_validator(mode="after")
    def _names_something(self) -> SourcePhase:
        if not self.weights:
            raise ValueError(
                "a phase's `weights` name no source; expected at least one, or '*' for all that "
                "`epochs` does not name"
            )
        for name, number in (*self.weights.items(), *self.epochs.items()):
            if not number > 0:
                raise ValueError(f"{name!r} has {number}; expected a positive number, or leave out")
        if both := set(self.weights) & set(self.epochs):
            raise ValueError(f"{min(both)!r} has both a weight and epochs: give one of them")
        return self


class SourceMixture(BaseModel):
    """Phases in order, and how often a source may be repeated over all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    phases: list[SourcePhase] = Field(min_length=1)
    max_epochs: float = Field(default=4.0, gt=0)
    """Passes over any one source in the whole run; up to four, repeated data is worth nearly as
    much as new data (Muennighoff et al. 2023, arXiv:2305.16264)."""
    caps: dict[str, float] = Field(default_factory=dict)
    """Source -> its own cap, instead of `max_epochs`."""

    @model_validator(mode="after")
    def _shares_make_one(self) -> SourceMixture:
        total = sum(phase.share for phase in self.phases)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the phases' shares make {total:g}; expected 1")
        return self
