"""Muon's orthogonalisation: its FLOPs, which rank takes which matrices, and what ranks exchange.

Five Newton-Schulz iterations (Jordan, 2024) of three products each: X Xᵀ, its square, and the
polynomial times X. Who computes is DeepSpeed's choice, by ZeRO stage:

* ZeRO 0: every rank, all matrices;
* ZeRO 1 and 2: a rank those of which its part of a group's flat array holds anything, so two ranks
  both take a matrix that lies across the border (`get_flat_partition`);
* ZeRO 3: matrices are gathered in chunks of at most a bucket, and of a chunk every rank takes one,
  round by round; after each the ranks hand updates and momentums round
  (`_muon_update_sub_group`), as many and as large as if every rank had had one of the largest size.

A group is of matrices with one learning rate, largest first, as `stages.tune.muon` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stages.planning.buckets import BUCKET_NUMBERS
from stages.planning.run_shape import RunShape
from stages.planning.weights import matrices

ITERATIONS = 5
"""DeepSpeed's ns_steps."""

Matrix = tuple[int, int]
"""Rows and columns."""


def iteration_flops(matrix: Matrix) -> float:
    """FLOPs that orthogonalise one matrix; a tall one is turned before."""
    short, long = sorted(matrix)
    return ITERATIONS * (4.0 * short**2 * long + 2.0 * short**3)


def newton_schulz_flops(run: RunShape) -> float:
    """FLOPs of one step on the rank that has most; at ZeRO 3 those that ranks wait for."""
    if run.config.optimizer != "muon":
        return 0.0
    found = groups(run)
    if run.config.parallel.zero == 0:
        return sum(iteration_flops(matrix) for group in found for matrix in group)
    if run.config.parallel.zero == 3:
        return sum(max(map(iteration_flops, taken)) for taken in rounds(run))
    shares = [shared_flops(group, run.replicas) for group in found]
    return max(map(sum, zip(*shares, strict=True)))


def shared_flops(group: Sequence[Matrix], ranks: int) -> list[float]:
    """What each rank computes of a group that lies in one array, cut in equal parts."""
    total = sum(rows * columns for rows, columns in group)
    shares, start = [0.0] * ranks, 0
    for rows, columns in group:
        end = start + rows * columns
        for rank in range(start * ranks // total, -(-end * ranks // total)):
            shares[rank] += iteration_flops((rows, columns))
        start = end
    return shares


def gathered_bytes(run: RunShape) -> float:
    """Bytes that a step gathers on every rank at ZeRO 3, beside the weights: gradients and
    momentums before, updates and momentums after, float32.
    """
    if run.config.optimizer != "muon" or run.config.parallel.zero != 3:
        return 0.0
    numbers = sum(rows * columns for group in groups(run) for rows, columns in group)
    handed = sum(max(rows * columns for rows, columns in taken) for taken in rounds(run))
    return 2 * 4.0 * (numbers + handed * run.replicas)


def held_bytes(run: RunShape) -> float:
    """Bytes that a rank has gathered at a time at ZeRO 3: a chunk's gradients and momentums, and
    what is handed round of both, which lands in them only where every rank has one of one size.
    """
    if run.config.optimizer != "muon" or run.config.parallel.zero != 3 or run.replicas == 1:
        return 0.0
    return max(held_of(chunk, run) for group in groups(run) for chunk in chunks(group))


def held_of(chunk: Sequence[Matrix], run: RunShape) -> float:
    numbers = sum(rows * columns for rows, columns in chunk)
    handed = [
        2 * run.replicas * max(rows * columns for rows, columns in taken)
        for taken in taken_of(chunk, run)
        if len(taken) < run.replicas or len(set(taken)) > 1
    ]
    return 4.0 * (2 * numbers + max([numbers, *handed]))  # or laid out as it was received


def groups(run: RunShape) -> list[list[Matrix]]:
    """A model rank's matrices by learning rate, in the optimizer's order."""
    by_scale: dict[float, list[Matrix]] = {}
    for _, rows, columns in matrices(run):
        by_scale.setdefault(scale(rows, columns), []).append((rows, columns))
    return [sorted(group, reverse=True) for group in by_scale.values()]


def scale(rows: int, columns: int) -> float:
    """What a matrix's learning rate is multiplied by: `stages.tune.muon`'s, which needs torch."""
    return round(0.2 * max(rows, columns) ** 0.5 / max(1.0, rows / columns) ** 0.5, 6)


def rounds(run: RunShape) -> Iterator[Sequence[Matrix]]:
    """The matrices that ranks work on at the same time at ZeRO 3, each on one."""
    for group in groups(run):
        for chunk in chunks(group):
            yield from taken_of(chunk, run)


def taken_of(chunk: Sequence[Matrix], run: RunShape) -> list[Sequence[Matrix]]:
    """Those of a chunk that ranks take in each round."""
    ranks = run.replicas
    return [chunk[start : start + ranks] for start in range(0, len(chunk), ranks)]


def chunks(group: Sequence[Matrix]) -> Iterator[list[Matrix]]:
    """As many matrices at a time as a bucket holds, at least one."""
    chunk: list[Matrix] = []
    numbers = 0
    for rows, columns in group:
        if chunk and numbers + rows * columns > BUCKET_NUMBERS:
            yield chunk
            chunk, numbers = [], 0
        chunk.append((rows, columns))
        numbers += rows * columns
    if chunk:
        yield chunk
