"""The order of a training's samples over its sources and phases, as arithmetic.

A sample is a window of one source. Sample k of a phase is dealt by halving: of the first k samples,
the left half of the sources gets floor(k * its weight / all weight), the right half the rest, and
so on within each, so that every source has its weight's share of *every* first k samples, to less
than one sample for each halving. A step's rows are its samples in an order of their own, drawn by a
keyed permutation. A source's windows are visited in epochs, each a keyed permutation, and its count
goes on from phase to phase: an annealing phase reads what the phases before left.

Nothing is stored, copied or iterated, so any worker finds any row in constant time, and a longer
run with the same weights begins with the same batches.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from stages.text.permutation import permute


@dataclass(frozen=True)
class Source:
    """A stretch of one tokens artifact that is read in windows.

    `part` numbers the artifact; `start` is where the source begins in the sequence of its tokens.
    """

    name: str
    part: int
    start: int
    tokens: int
    key: tuple[int, ...] = ()
    """Stands for it in the keys of permutations, so that another source beside it changes nothing.
    """

    def windows(self, length: int) -> int:
        """Samples of `length` tokens in it; the last token of all has no successor."""
        return max(0, (self.tokens - 1) // length)

    def window(self, number: int, length: int, seed: int) -> int:
        """Where the `number`-th window that is read of it begins in the artifact's tokens."""
        count = self.windows(length)
        epoch, within = divmod(number, count)
        return self.start + permute(within, count, (seed, *self.key, epoch)) * length


@dataclass(frozen=True)
class PhasePlan:
    """From step `begin` on, source s gets weights[s] of every sum(weights) samples."""

    begin: int
    weights: tuple[int, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *accumulate(self.weights)]

    def deal(self, sample: int) -> tuple[int, int]:
        """(source, how many of the phase's samples before this one are that source's)."""
        ends, low, high = self._ends, 0, len(self.weights)
        while high - low > 1:
            middle = (low + high) // 2
            left, total = ends[middle] - ends[low], ends[high] - ends[low]
            before = sample * left // total
            if (sample + 1) * left // total > before:
                high, sample = middle, before
            else:
                low, sample = middle, sample - before
        return low, sample

    def taken(self, samples: int) -> list[int]:
        """How many of the phase's first `samples` come from each source."""
        counts = [0] * len(self.weights)

        def share(low: int, high: int, count: int) -> None:
            if high - low == 1:
                counts[low] = count
                return
            middle = (low + high) // 2
            total = self._ends[high] - self._ends[low]
            left = count * (self._ends[middle] - self._ends[low]) // total if total else 0
            share(low, middle, left)
            share(middle, high, count - left)

        share(0, len(self.weights), samples)
        return counts


@dataclass(frozen=True)
class DataPlan:
    """Which window every row of a run is. The last phase has no end."""

    sources: tuple[Source, ...]
    length: int
    rows: int
    """Samples of a step, over all workers."""
    seed: int
    phases: tuple[PhasePlan, ...]

    @classmethod
    def of_one(cls, tokens: int, length: int, rows: int, seed: int) -> DataPlan:
        """All of one artifact of so many tokens, epoch after epoch."""
        return cls((Source("", 0, 0, tokens),), length, rows, seed, (PhasePlan(0, (1,)),))

    @cached_property
    def _begins(self) -> list[int]:
        return [phase.begin for phase in self.phases]

    @cached_property
    def _before(self) -> list[list[int]]:
        """Samples of each source before each phase."""
        found = [[0] * len(self.sources)]
        for phase, following in pairwise(self.phases):
            taken = phase.taken((following.begin - phase.begin) * self.rows)
            found.append([a + b for a, b in zip(found[-1], taken, strict=True)])
        return found

    def place(self, step: int, row: int) -> tuple[int, int]:
        """(source, which of its samples) of one row of a step."""
        number = bisect_right(self._begins, step) - 1
        phase = self.phases[number]
        drawn = permute(row, self.rows, (self.seed, -1, step))
        source, count = phase.deal((step - phase.begin) * self.rows + drawn)
        return source, self._before[number][source] + count

    def start(self, step: int, row: int, passed: Sequence[int] = ()) -> tuple[int, int]:
        """(source, where the row begins in the tokens of the source's artifact), where so many
        further samples of each source have `passed` before the step.
        """
        source, number = self.place(step, row)
        number += passed[source] if passed else 0
        return source, self.sources[source].window(number, self.length, self.seed)

    def taken(self, steps: int) -> list[int]:
        """Samples that the first `steps` steps take from each source."""
        number = max(0, bisect_right(self._begins, steps - 1) - 1)
        phase = self.phases[number]
        last = phase.taken((steps - phase.begin) * self.rows)
        return [a + b for a, b in zip(self._before[number], last, strict=True)]

    def epochs(self, steps: int) -> dict[str, float]:
        """Source -> passes over it in the first `steps` steps."""
        return {
            source.name: count / max(1, source.windows(self.length))
            for source, count in zip(self.sources, self.taken(steps), strict=True)
        }

    def samples_of(self, stretches: Iterable[tuple[int, int]]) -> list[int]:
        """Samples of each source in the steps [begin, end) of all the stretches together."""
        total = [0] * len(self.sources)
        for begin, end in stretches:
            counts = zip(total, self.taken(begin), self.taken(end), strict=True)
            total = [so_far + after - before for so_far, before, after in counts]
        return total

    def agrees_until(self, other: DataPlan) -> float:
        """How many steps from the run's beginning are the same in both plans: whether a checkpoint
        of one run may be continued by the other.
        """
        if replace(self, phases=()) != replace(other, phases=()):
            return 0
        for mine, theirs in zip(self.phases, other.phases, strict=False):
            if mine != theirs:
                return min(mine.begin, theirs.begin)
        longer = max(self.phases, other.phases, key=len)
        shared = min(len(self.phases), len(other.phases))
        return longer[shared].begin if shared < len(longer) else float("inf")


def source_key(part: int, name: str) -> tuple[int, int]:
    """A source's key: its artifact's place, and its name in the corpus."""
    digest = hashlib.blake2b(name.encode(), digest_size=6).digest()
    return part, int.from_bytes(digest, "big")
