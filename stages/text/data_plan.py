"""The order of a training's samples over several sources and phases, as arithmetic.

A sample is a window of one source. Sample k of the run lies in a phase; there, a block of samples
holds each source's quota (at a block's end no source is a whole sample away from its weight, but
the largest, which takes what rounding leaves), in an order given by a keyed permutation. A source's
own windows are visited in epochs, each a keyed permutation, and its count goes on from phase to
phase: an annealing phase reads what the phases before left. Nothing is stored, copied or iterated,
so any worker finds any sample in constant time.

    plan = DataPlan.build(config.sources, shards.ranges, length, steps, rows, seed)
    batch = shards.batch(step, rows, length, seed, rank, world, plan=plan)
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from cluster.errors import UserError
from stages.text.permutation import permute
from stages.text.source_mixture import REST, SourceMixture, SourcePhase

_BLOCK = 4096
_ONE = 1 << 40  # fixed point: the same weights give the same order, however long the phase is


@dataclass(frozen=True)
class SourceRange:
    """A source's place in the sequence of all tokens."""

    name: str
    start: int
    tokens: int

    def windows(self, length: int) -> int:
        """Samples of `length` tokens in it; the last token of all has no successor."""
        return max(0, (self.tokens - 1) // length)


@dataclass(frozen=True)
class PhasePlan:
    """A resolved phase: samples [first, first + samples), and each source's fixed-point weight.

    `rest` is the source that takes what rounding leaves; `before` counts each source's samples in
    the phases before.
    """

    first: int
    samples: int
    weights: tuple[int, ...]
    rest: int
    before: tuple[int, ...] = ()

    @property
    def block(self) -> int:
        """Samples of a block: enough that rounding never asks the largest source for less than
        none.
        """
        return max(_BLOCK, 1 << (len(self.weights) ** 2).bit_length())

    def taken(self, samples: int) -> list[int]:
        """How many of the phase's first `samples` (a whole number of blocks, or all) come from
        each source.
        """
        counts = [samples * weight // _ONE for weight in self.weights]
        counts[self.rest] = samples - sum(counts) + counts[self.rest]
        return counts


@dataclass(frozen=True)
class DataPlan:
    """Which window every sample of a run is. Sources are numbered as in `ranges`."""

    ranges: tuple[SourceRange, ...]
    length: int
    seed: int
    phases: tuple[PhasePlan, ...]

    @classmethod
    def build(
        cls,
        mixture: SourceMixture,
        ranges: Sequence[SourceRange],
        length: int,
        steps: int,
        rows: int,
        seed: int,
    ) -> DataPlan:
        """Resolve a mixture for a run of `steps` steps of `rows` samples; impossible ones are a
        UserError.
        """
        names = [found.name for found in ranges]
        _check_names(mixture, names)
        windows = [found.windows(length) for found in ranges]
        caps = [
            round(mixture.caps.get(name, mixture.max_epochs) * count)
            for name, count in zip(names, windows, strict=True)
        ]
        ends = [round(steps * share) for share in accumulate(p.share for p in mixture.phases)]
        bounds = [0, *(end * rows for end in ends[:-1]), steps * rows]
        sizes = [stop - start for start, stop in pairwise(bounds)]
        # The last phase chooses first: annealing is what a cap must not take away.
        weights: list[tuple[list[int], int]] = []
        for phase, samples in reversed(list(zip(mixture.phases, sizes, strict=True))):
            found = _weights(phase, samples, names, windows, caps)
            weights.insert(0, found)
            plan = PhasePlan(0, samples, tuple(found[0]), found[1])
            caps = [max(0, cap - n) for cap, n in zip(caps, plan.taken(samples), strict=True)]
        phases: list[PhasePlan] = []
        before = [0] * len(ranges)
        for first, samples, (shares, rest) in zip(bounds, sizes, weights, strict=False):
            phases.append(PhasePlan(first, samples, tuple(shares), rest, tuple(before)))
            taken = phases[-1].taken(samples)
            before = [a + b for a, b in zip(before, taken, strict=True)]
        return cls(tuple(ranges), length, seed, tuple(phases))

    @property
    def samples(self) -> int:
        """Samples in the whole run."""
        return self.phases[-1].first + self.phases[-1].samples

    def place(self, sample: int) -> tuple[int, int, int]:
        """(source, epoch, window) of a sample of the run."""
        if not 0 <= sample < self.samples:
            raise ValueError(f"sample {sample} is outside the run's {self.samples}")
        number = bisect_right([phase.first for phase in self.phases], sample) - 1
        while not self.phases[number].samples:  # phases too short for one step share a beginning
            number -= 1
        phase = self.phases[number]
        block, within = divmod(sample - phase.first, phase.block)
        start, stop = block * phase.block, min((block + 1) * phase.block, phase.samples)
        low, high = phase.taken(start), phase.taken(stop)
        bounds = list(accumulate((b - a for a, b in zip(low, high, strict=True)), initial=0))
        drawn = permute(within, stop - start, (self.seed, number, block))
        source = bisect_right(bounds, drawn) - 1
        ordinal = phase.before[source] + low[source] + drawn - bounds[source]
        count = self.ranges[source].windows(self.length)
        epoch, ordinal = divmod(ordinal, count)
        return source, epoch, permute(ordinal, count, (self.seed, _number(self, source), epoch))

    def start(self, sample: int) -> int:
        """Where a sample begins in the sequence of all tokens."""
        source, _, window = self.place(sample)
        return self.ranges[source].start + window * self.length

    def epochs(self) -> dict[str, float]:
        """Source -> passes over it in the whole run."""
        last = self.phases[-1]
        counts = [a + b for a, b in zip(last.before, last.taken(last.samples), strict=True)]
        return {
            found.name: count / max(1, found.windows(self.length))
            for found, count in zip(self.ranges, counts, strict=True)
        }

    def agrees_until(self, other: DataPlan) -> int:
        """How many samples from the run's beginning are the same in both plans (a lower bound):
        whether a checkpoint of one run may be continued by the other.
        """
        if (self.ranges, self.length, self.seed) != (other.ranges, other.length, other.seed):
            return 0
        agreed = 0
        for mine, theirs in zip(self.phases, other.phases, strict=False):
            key = (mine.first, mine.weights, mine.rest, mine.before)
            if key != (theirs.first, theirs.weights, theirs.rest, theirs.before):
                return agreed
            if mine.samples != theirs.samples:  # a last block that is cut short is another block
                shorter = min(mine.samples, theirs.samples)
                return mine.first + shorter // mine.block * mine.block
            agreed = mine.first + mine.samples
        return agreed


def _number(plan: DataPlan, source: int) -> int:
    """A source's number in keys, from its name: another source beside it changes nothing."""
    name = plan.ranges[source].name.encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big")


def _check_names(mixture: SourceMixture, names: Sequence[str]) -> None:
    named = set(mixture.caps)
    for phase in mixture.phases:
        named |= set(phase.weights) | set(phase.epochs)
    if unknown := sorted(named - set(names) - {REST}):
        raise UserError(
            f"the mixture names {', '.join(map(repr, unknown))}, but the tokens come from "
            f"{', '.join(map(repr, names))}: sources are called as in the corpus stage"
        )


def _weights(
    phase: SourcePhase,
    samples: int,
    names: Sequence[str],
    windows: Sequence[int],
    caps: Sequence[int],
) -> tuple[list[int], int]:
    """(fixed-point weights, the source that takes the rest) of one phase."""
    fixed = {name: round(phase.epochs[name] * windows[names.index(name)]) for name in phase.epochs}
    for name, count in fixed.items():
        if count > caps[names.index(name)]:
            raise UserError(
                f"the mixture asks for {phase.epochs[name]:g} epochs of {name!r} in a phase, more "
                "than its cap leaves: raise max_epochs or caps, or ask for less"
            )
    left = samples - sum(fixed.values())
    if left < 0:
        raise UserError(
            f"a phase of {samples} samples cannot hold the epochs asked for, which are "
            f"{sum(fixed.values())} samples: raise its share or the steps, or ask for less"
        )
    shares = _spread(_named(phase, names, windows), caps, names, left)
    fixed_point = [0] * len(names)
    for source, share in shares.items():
        fixed_point[source] = round(share / max(1, samples) * _ONE)
    for name, count in fixed.items():  # rounded up, so that exactly so many come out
        fixed_point[names.index(name)] = -(-count * _ONE // max(1, samples))
    return fixed_point, max(range(len(names)), key=lambda s: (fixed_point[s], -s))


def _named(phase: SourcePhase, names: Sequence[str], windows: Sequence[int]) -> dict[int, float]:
    """Source -> weight, with "*" shared out by size among the sources not named."""
    weights = {names.index(n): w for n, w in phase.weights.items() if n != REST}
    if REST in phase.weights:
        rest = [
            source
            for source, name in enumerate(names)
            if name not in phase.weights and name not in phase.epochs
        ]
        size = sum(windows[source] for source in rest)
        for source in rest:
            if windows[source]:
                weights[source] = phase.weights[REST] * windows[source] / size
    for source in weights:
        if not windows[source]:
            raise UserError(
                f"source {names[source]!r} holds too few tokens for one sequence: leave it out of "
                "the mixture, or shorten the sequence"
            )
    return weights


def _spread(
    weights: Mapping[int, float], caps: Sequence[int], names: Sequence[str], samples: int
) -> dict[int, float]:
    """Source -> samples: by weight, none above its cap, what a cap takes shared by the others."""
    counts = dict.fromkeys(weights, 0.0)
    open_sources, left = dict(weights), float(samples)
    while left > 1e-9 and open_sources:
        total = sum(open_sources.values())
        full = [s for s, w in open_sources.items() if left * w / total >= caps[s]]
        if not full:
            return counts | {s: left * w / total for s, w in open_sources.items()}
        for source in full:
            counts[source] = float(caps[source])
            left -= caps[source]
            del open_sources[source]
    if left > 0.5:
        held = ", ".join(f"{names[source]} {caps[source]}" for source in sorted(weights))
        raise UserError(
            f"a phase asks for {samples} samples of {held} left within the caps, {round(left)} too "
            "many: raise max_epochs, name more sources, or train for fewer steps"
        )
    return counts
