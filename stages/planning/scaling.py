"""What more workers gave when corpora were made: measured, and what is assumed beyond it.

A corpus's manifest says how many workers read its units, the seconds from the first unit to the
last, and the shares of these seconds that a worker had a unit in hand and that a CPU worked. The
last, CPU-seconds over workers times seconds, is the parallel efficiency of that very run: no second
one is needed to know it. One worker, though, tells nothing of many, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.artifact import Manifest

SHORT_CPU_S = 60.0
"""A sample that took less tells more of models being loaded than of pages."""


@dataclass(frozen=True)
class Reading:
    """How the units of one corpus were read."""

    corpus: Manifest

    @property
    def _units(self) -> dict[str, Any]:
        return dict(self.corpus.metrics["work"]["units"])

    @property
    def workers(self) -> int:
        return max(1, int(self.corpus.metrics["work"]["workers"]))

    @property
    def measured(self) -> bool:
        """Whether workers were watched: not where all units had been made by a run before."""
        return self._units["busy_share"] is not None

    @property
    def busy_share(self) -> float:
        """Of the seconds of all workers, at most 1: libraries may use threads of their own."""
        return min(1.0, self._units["busy_share"] or 1.0)

    @property
    def megabytes(self) -> float:
        return float(self.corpus.metrics["bytes_in"]) / 1e6

    @property
    def cpu_s_per_megabyte(self) -> float:
        return float(self._units["cpu_seconds"]) / self.megabytes

    @property
    def short(self) -> bool:
        return float(self._units["cpu_seconds"]) < SHORT_CPU_S

    @property
    def core_rate(self) -> float:
        """MB of records a second of each core that is held."""
        return self.busy_share / self.cpu_s_per_megabyte

    def says(self) -> str:
        units, whole = self._units, self.corpus.metrics["work"].get("seconds")
        known = "" if whole is None else f" of {units['seconds']:,.1f} s, of {whole:,.1f} s in all"
        known += "" if whole is None else f"; a unit in hand {units['held_share']:.0%}"
        return (
            f"{self.core_rate:.3g} MB/s a core (busy {self.busy_share:.0%}{known}; "
            f"{self.cpu_s_per_megabyte:.3g} CPU-seconds a MB; {self.corpus.id})"
        )


def readings(made: Sequence[Manifest]) -> list[Reading]:
    """For each number of workers that was used the largest corpus, fewest workers first."""
    by_workers: dict[int, Reading] = {}
    for manifest in sorted(made, key=lambda manifest: manifest.metrics["bytes_in"]):
        if (one := Reading(manifest)).measured:
            by_workers[one.workers] = one
    return [by_workers[workers] for workers in sorted(by_workers)]


def basis_of(made: Sequence[Manifest]) -> Reading:
    """The corpus that a plan scales: the largest, but one that several workers made before any that
    one did, unless it is a short sample. What workers take from each other is then in its rates.
    """

    def rank(one: Reading) -> tuple[bool, float]:
        return one.measured and one.workers > 1 and not one.short, one.megabytes

    return max((Reading(manifest) for manifest in made), key=rank)


def scaling_figures(
    found: Sequence[Reading], basis: Reading, cores: int, stage: str
) -> dict[str, Any]:
    """What was measured, by numbers of workers, and what `cores` cores are assumed to do: as those
    of the `basis`, whose rates the plan uses.
    """
    figures: dict[str, Any] = {
        f"measured: scaling, {_workers(one.workers)}": one.says() for one in found
    }
    if len(found) > 1:
        first, last = found[0], found[-1]
        kept = last.core_rate / first.core_rate
        faster = kept * last.workers / first.workers
        figures[f"measured: scaling, {first.workers} to {last.workers} workers"] = (
            f"{faster:.3g} times as fast ({kept:.2f} of a core's speed)"
        )
    return figures | {"extrapolated: scaling": _assumed(found, basis, cores, stage)}


def _assumed(found: Sequence[Reading], basis: Reading, cores: int, stage: str) -> str:
    if basis.measured and basis.workers > 1:
        return f"{cores:,} cores assumed as fast as each of {basis.workers} workers was"
    if not found:
        seen = "no run measured how busy its workers were"
    elif any(one.workers > 1 for one in found):
        seen = "more workers only in short samples"
    else:
        seen = "one worker count seen (1)"
    return (
        f"{seen}: scaling assumed, {cores:,} cores as fast as one; a larger sample made with --set "
        f"stages.{stage}.workers=2 or more measures it"
    )


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"
