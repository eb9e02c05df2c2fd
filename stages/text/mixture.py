"""What a training reads of its sources: weights or epochs, caps, and phases that change them.

    mixture:
      weights: {"*": 0.7, books: 0.3}         # from the first step on
      epochs: {handbook: 2}                   # instead of a weight: so many passes, exactly
      phases:
        - {begin: decay, weights: {books: 0.6, crawl: 0.4}}          # the annealing phase
      max_epochs: 4                           # over any one source in the whole run
      caps: {books: 8}                        # its own, instead

A source is called as in the corpus stage. Of several tokens artifacts, `web` means all of the
artifact that the recipe calls web, and `web/books` one source of it. "*" is every source. A name
that stands for several means those that no more exact name is given for; they share by size.

Only the schema is here; `stages.text.data_plan` turns it into an order of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ALL = "*"


class Shares(BaseModel):
    """How the samples of a stretch of the run are shared out. A source that is not named is not
    read in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    weights: dict[str, float] = Field(default_factory=lambda: {ALL: 1.0})
    """Source -> its part of what `epochs` leaves; any positive numbers."""
    epochs: dict[str, float] = Field(default_factory=dict)
    """Source -> passes over it in this stretch."""

    @model_validator(mode="after")
    def _names_something(self) -> Shares:
        if not self.weights:
            raise ValueError(
                "`weights` names no source: name one at least, or '*' for all that `epochs` does "
                "not name"
            )
        for name, number in (*self.weights.items(), *self.epochs.items()):
            if not 0 < number < float("inf"):
                raise ValueError(
                    f"{name!r} has {number:g}: give a positive number, or leave out the source"
                )
        if both := set(self.weights) & set(self.epochs):
            raise ValueError(f"{min(both)!r} has both a weight and epochs: give one of them")
        return self


class Phase(Shares):
    """From a step on, other shares: annealing on better text at the end, say."""

    begin: int | Literal["decay"] = "decay"
    """A step, or where the learning rate of a warmup-stable-decay run begins to fall."""


class Mixture(Shares):
    """The shares from the first step on, what follows them, and how often a source may be read."""

    phases: list[Phase] = Field(default_factory=list)
    max_epochs: float = Field(default=4.0, gt=0)
    """Passes over any one source in the whole run; up to four, repeated data is worth nearly as
    much as new data (Muennighoff et al. 2023, arXiv:2305.16264)."""
    caps: dict[str, float] = Field(default_factory=dict)
    """Source -> its own cap, instead of `max_epochs`."""
    tokens: tuple[str, ...] = ()
    """Of several tokens, their names, filled in: weights say nothing without them."""

    @model_validator(mode="before")
    @classmethod
    def _names_its_sources(cls, written: Any) -> Any:
        if isinstance(written, list | tuple):
            raise ValueError(
                f"found {list(written)}, expected the sources by name: {{weights: {{web: 0.7, "
                "books: 0.3}}"
            )
        unknown = set(written) - set(cls.model_fields) if isinstance(written, Mapping) else set()
        if unknown and all(isinstance(written[name], int | float) for name in unknown):
            said = ", ".join(f"{name}: {written[name]}" for name in sorted(map(str, unknown)))
            raise ValueError(f"found {said}: write sources under weights: {{{said}}}")
        return written

    @model_validator(mode="after")
    def _caps_are_positive(self) -> Mixture:
        for name, cap in self.caps.items():
            if not cap > 0:
                raise ValueError(
                    f"caps gives {name!r} {cap:g} epochs: give a positive number, or leave the "
                    "source out of weights"
                )
        return self

    def stretches(self, decay_start: int) -> list[tuple[int, Shares]]:
        """(first step, shares from there on), in order; phases must begin at rising steps."""
        found: list[tuple[int, Shares]] = [(0, self)]
        for phase in self.phases:
            found.append((decay_start if phase.begin == "decay" else phase.begin, phase))
        begins = [begin for begin, _ in found]
        if begins != sorted(set(begins)):
            raise ValueError(
                f"the mixture and its phases begin at steps {begins}: give rising steps after 0"
            )
        return found

    def names(self) -> set[str]:
        """Every name in it that must be a source's."""
        found = set(self.caps)
        for shares in (self, *self.phases):
            found |= set(shares.weights) | set(shares.epochs)
        return found - {ALL}
