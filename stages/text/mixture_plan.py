"""From a mixture's names, weights, epochs and caps to whole-number weights of sources, by phase.

Where a phase's weights can be had as they are, they stay as written however long the phase is, so
that a longer run begins with the same batches; where epochs are asked for or a cap binds, they are
the exact numbers of samples. The last phase chooses first: annealing is what a cap must not
take away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from cluster.errors import UserError
from stages.text.data_plan import DataPlan, PhasePlan, Source
from stages.text.mixture import ALL, Mixture, Shares


def plan_mixture(
    mixture: Mixture,
    artifacts: Sequence[str],
    sources: Sequence[Source],
    *,
    length: int,
    rows: int,
    steps: int,
    seed: int,
    decay_start: int,
) -> DataPlan:
    """The order of a run of `steps` steps of `rows` samples; an impossible one is a UserError.

    `artifacts` are the recipe's names of the tokens, by the sources' `part`.
    """
    names = SourceNames(artifacts, sources)
    names.check(mixture.names())
    windows = [source.windows(length) for source in sources]
    caps = names.caps(mixture, windows)
    reached = [stretch for stretch in mixture.stretches(decay_start) if stretch[0] < steps]
    bounds = [*(begin for begin, _ in reached), steps]
    phases: list[PhasePlan] = []
    for (_, shares), (begin, end) in reversed(list(zip(reached, pairwise(bounds), strict=True))):
        stretch = _Stretch(begin, end, (end - begin) * rows, names, windows, caps)
        phase = PhasePlan(begin, stretch.weights(shares))
        taken = phase.taken(stretch.samples)
        caps = [max(0, cap - count) for cap, count in zip(caps, taken, strict=True)]
        phases.insert(0, phase)
    return DataPlan(tuple(sources), length, rows, seed, tuple(phases))


class SourceNames:
    """What a mixture may call each source, the most exact name first."""

    def __init__(self, artifacts: Sequence[str], sources: Sequence[Source]) -> None:
        self.sources = sources
        self.called: list[list[str]] = []
        for source in sources:
            artifact = artifacts[source.part]
            whole = f"{artifact}/{source.name}" if len(artifacts) == 1 else source.name
            self.called.append([source.name, whole, artifact, ALL])

    def check(self, said: Iterable[str]) -> None:
        """A UserError if a name is no source's."""
        known = {name for names in self.called for name in names}
        if unknown := sorted(set(said) - known):
            raise UserError(
                f"the mixture names {', '.join(map(repr, unknown))}, but the tokens come from "
                f"{', '.join(repr(source.name) for source in self.sources)}: name these (sources "
                "are called as in the corpus stage)"
            )

    def owned(self, said: Iterable[str]) -> dict[str, list[int]]:
        """Name -> the sources it stands for: those that no more exact name of `said` means."""
        found: dict[str, list[int]] = {name: [] for name in said}
        for number, names in enumerate(self.called):
            if name := next((name for name in names if name in found), None):
                found[name].append(number)
        return found

    def caps(self, mixture: Mixture, windows: Sequence[int]) -> list[float]:
        """How many samples the run may take of each source."""
        passes = [mixture.max_epochs] * len(windows)
        for name, numbers in self.owned(mixture.caps).items():
            for number in numbers:
                passes[number] = mixture.caps[name]
        return [
            math.inf if math.isinf(cap) else math.floor(Fraction(str(cap)) * count)
            for cap, count in zip(passes, windows, strict=True)
        ]


@dataclass(frozen=True)
class _Stretch:
    """Steps [begin, end) and the samples in them, shared out to sources of so many windows, of
    which no more than `caps` are to be had.
    """

    begin: int
    end: int
    samples: int
    names: SourceNames
    windows: Sequence[int]
    caps: Sequence[float]

    def weights(self, shares: Shares) -> tuple[int, ...]:
        """The weight of each source."""
        owned = self.names.owned([*shares.weights, *shares.epochs])
        for name, numbers in owned.items():
            self._check_text(name, numbers)
        exact = self._exact(shares, owned)
        left = self.samples - sum(exact.values())
        if left < 0:
            raise UserError(
                f"{self} hold {self.samples} samples and `epochs` asks for {sum(exact.values())}: "
                "ask for fewer epochs, let the phase begin earlier, or train for more steps"
            )
        wanted = self._wanted(shares, owned)
        counts, capped = self._within_caps(wanted, left)
        if not exact and not capped:
            as_written = self._by_source(_smallest_integers(wanted))
            taken = PhasePlan(self.begin, as_written).taken(self.samples)
            if all(count <= cap for count, cap in zip(taken, self.caps, strict=True)):
                return as_written
        return self._by_source(exact | _whole_numbers(counts, left))

    def _by_source(self, weights: Mapping[int, int]) -> tuple[int, ...]:
        return tuple(weights.get(source, 0) for source in range(len(self.windows)))

    def _check_text(self, name: str, numbers: Sequence[int]) -> None:
        if not numbers:
            raise UserError(
                f"the mixture gives {name!r} a share, and all its sources have one of their own: "
                f"leave {name!r} out there"
            )
        if not any(self.windows[number] for number in numbers):
            raise UserError(
                f"{name!r} holds too few tokens for one sequence: leave it out of the mixture, or "
                "shorten sequence_length"
            )

    def _exact(self, shares: Shares, owned: Mapping[str, Sequence[int]]) -> dict[int, int]:
        """Source -> samples, of those that epochs are asked of."""
        found = {}
        for name, passes in shares.epochs.items():
            for source in owned[name]:
                found[source] = round(passes * self.windows[source])
                if found[source] > self.caps[source]:
                    raise UserError(
                        f"{self} ask for {passes:g} epochs of {name!r}, more than its cap leaves "
                        f"({self.caps[source] / self.windows[source]:.3g}): raise max_epochs or "
                        "its caps, or ask for less"
                    )
        return found

    def _wanted(self, shares: Shares, owned: Mapping[str, Sequence[int]]) -> dict[int, Fraction]:
        """Source -> weight; those under one name share it by size."""
        found: dict[int, Fraction] = {}
        for name, weight in shares.weights.items():
            written = Fraction(str(weight))  # 0.7 means seven tenths
            size = sum(self.windows[source] for source in owned[name])
            found |= {s: written * self.windows[s] / size for s in owned[name] if self.windows[s]}
        return dict(sorted(found.items()))

    def _within_caps(
        self, wanted: Mapping[int, Fraction], samples: int
    ) -> tuple[dict[int, Fraction], bool]:
        """(source -> samples by weight, none above its cap, what a cap takes shared by the others;
        whether a cap took something).
        """
        counts = dict.fromkeys(wanted, Fraction(0))
        waiting, left = dict(wanted), Fraction(samples)
        while waiting:
            whole = sum(waiting.values())
            full = [s for s, weight in waiting.items() if left * weight / whole > self.caps[s]]
            if not full:
                counts |= {s: left * weight / whole for s, weight in waiting.items()}
                return counts, len(waiting) < len(wanted)
            for source in full:
                counts[source] = Fraction(self.caps[source])
                left -= counts[source]
                del waiting[source]
        held = ", ".join(f"{self.names.sources[s].name} {self.caps[s]:g}" for s in wanted)
        raise UserError(
            f"{self} ask for {samples} samples by weight, {math.ceil(left)} more than the caps "
            f"leave ({held}): raise max_epochs or caps, name more sources, or train for fewer steps"
        )

    def __str__(self) -> str:
        return f"the mixture's steps {self.begin} to {self.end}"


def _smallest_integers(weights: Mapping[int, Fraction]) -> dict[int, int]:
    """The same ratios."""
    common = math.lcm(*(weight.denominator for weight in weights.values()))
    found = {source: int(weight * common) for source, weight in weights.items()}
    divisor = math.gcd(*found.values())
    return {source: number // divisor for source, number in found.items()}


def _whole_numbers(counts: Mapping[int, Fraction], total: int) -> dict[int, int]:
    """Rounded by largest remainder, so that they make `total`."""
    found = {source: math.floor(count) for source, count in counts.items()}
    order = sorted(counts, key=lambda source: (found[source] - counts[source], source))
    for source in order[: total - sum(found.values())]:
        found[source] += 1
    return found
