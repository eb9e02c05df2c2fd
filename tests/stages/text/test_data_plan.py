"""The order of samples: exact shares of every beginning, each window once an epoch, phases."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import ceil, log2

import numpy as np
import pytest

from stages.text.data_plan import DataPlan, PhasePlan, Source

LENGTH, ROWS = 8, 5
SOURCES = (
    Source("crawl", 0, 0, 4001, (0, 1)),
    Source("books", 0, 4001, 801, (0, 2)),
    Source("code", 1, 0, 1603, (1, 3)),
)


def plan(*phases: tuple[int, tuple[int, ...]], sources: tuple[Source, ...] = SOURCES) -> DataPlan:
    return DataPlan(sources, LENGTH, ROWS, 17, tuple(PhasePlan(*phase) for phase in phases))


def drawn(made: DataPlan, first: int, last: int) -> Counter[int]:
    return Counter(made.place(step, row)[0] for step in range(first, last) for row in range(ROWS))


@pytest.mark.parametrize("weights", [(7, 1, 2), (1, 1, 1), (0, 3, 1), (1, 0, 0), (1000, 1, 999)])
def test_dealing_one_by_one_is_what_taken_counts(weights: tuple[int, ...]) -> None:
    phase = PhasePlan(0, weights)
    counts = [0, 0, 0]
    for sample in range(2 * sum(weights)):
        assert phase.taken(sample) == counts
        source, number = phase.deal(sample)
        assert number == counts[source], "a source's samples are numbered without a gap"
        counts[source] += 1
        wanted = [(sample + 1) * weight / sum(weights) for weight in weights]
        assert max(abs(a - b) for a, b in zip(counts, wanted, strict=True)) < 2
    assert counts == [2 * weight for weight in weights], "whole rounds are exact"


def test_many_sources_keep_their_share_of_every_beginning() -> None:
    draw = np.random.default_rng(0)
    weights = tuple(int(w) for w in draw.integers(1, 10**6, 1000))
    phase = PhasePlan(0, weights)
    for samples in (1, 17, 1000, 123_457, sum(weights)):
        taken = phase.taken(samples)
        assert sum(taken) == samples and min(taken) >= 0
        wanted = [samples * weight / sum(weights) for weight in weights]
        gap = max(abs(a - b) for a, b in zip(taken, wanted, strict=True))
        assert gap < ceil(log2(len(weights)))
    assert phase.taken(sum(weights)) == list(weights)
    for sample in (0, 5, 999, 10**9):
        source, number = phase.deal(sample)
        assert phase.taken(sample)[source] == number == phase.taken(sample + 1)[source] - 1


def test_every_step_is_mixed_and_a_step_tells_nothing_of_its_rows() -> None:
    made = plan((0, (1, 1, 3)))
    for step in range(50):
        assert drawn(made, step, step + 1) == {0: 1, 1: 1, 2: 3}
    firsts = Counter(made.place(step, 0)[0] for step in range(500))
    assert len(firsts) == 3 and firsts[2] == pytest.approx(300, abs=60)


def test_a_source_is_read_epoch_by_epoch_across_phases() -> None:
    made = plan((0, (2, 2, 1)), (60, (0, 1, 4)))
    seen: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for step in range(300):
        for source, number in sorted(made.place(step, row) for row in range(ROWS)):
            seen[source].append((number, SOURCES[source].window(number, LENGTH, 17)))
    for source, places in seen.items():
        assert [number for number, _ in places] == list(range(len(places)))
        assert len(places) == made.taken(300)[source]
        count = SOURCES[source].windows(LENGTH)
        for epoch in range(len(places) // count):
            starts = [start for _, start in places[epoch * count : (epoch + 1) * count]]
            whole = range(SOURCES[source].start, SOURCES[source].start + count * LENGTH, LENGTH)
            assert sorted(starts) == list(whole) and starts != list(whole)
        assert made.epochs(300)[SOURCES[source].name] == len(places) / count
    assert drawn(made, 60, 300) == {1: 240, 2: 960}


def test_any_step_is_found_without_the_others() -> None:
    made, far = plan((0, (5, 2, 3)), (10**9, (1, 1, 1))), 10**12 + 1
    places = [made.place(far, row) for row in range(ROWS)]
    assert places == [plan((0, (5, 2, 3)), (10**9, (1, 1, 1))).place(far, r) for r in range(ROWS)]
    before = made.taken(far)
    after = made.taken(far + 1)
    for source, number in places:
        assert before[source] <= number < after[source]


def test_samples_of_stretches_are_those_that_their_steps_draw() -> None:
    made = plan((0, (1, 1, 0)), (10, (0, 1, 2)))
    for stretches in ([(4, 7)], [(8, 13)], [(3, 5), (9, 11), (4, 12)]):
        steps = [step for begin, end in stretches for step in range(begin, end)]
        counted = Counter(made.place(step, row)[0] for step in steps for row in range(ROWS))
        assert made.samples_of(stretches) == [counted[source] for source in range(3)]


def test_samples_that_passed_before_are_not_read() -> None:
    made = plan((0, (5, 2, 3)))
    source, number = made.place(4, 0)
    passed = [0, 0, 0]
    passed[source] = 3
    expected = SOURCES[source].window(number + 3, LENGTH, made.seed)
    assert made.start(4, 0, passed) == (source, expected)


def test_how_long_two_orders_agree() -> None:
    short, long = plan((0, (3, 1, 1)), (7, (0, 1, 1))), plan((0, (3, 1, 1)), (14, (0, 1, 1)))
    assert short.agrees_until(long) == long.agrees_until(short) == 7
    for step in range(7):
        assert [short.start(step, r) for r in range(ROWS)] == [
            long.start(step, r) for r in range(ROWS)
        ]
    assert short.place(7, 0) != long.place(7, 0)
    assert short.agrees_until(plan((0, (3, 1, 1)))) == 7
    assert short.agrees_until(plan((0, (3, 1, 1)), (7, (1, 1, 1)))) == 7
    assert short.agrees_until(plan((0, (3, 1, 2)), (7, (0, 1, 1)))) == 0
    assert short.agrees_until(replace(short, seed=18)) == 0
    assert short.agrees_until(replace(short)) == float("inf")


def test_another_source_beside_it_changes_no_window_of_a_source() -> None:
    grown = (*SOURCES, Source("more", 1, 1603, 500, (1, 4)))
    many = plan((0, (1, 1, 1, 1)), sources=grown)
    for source in range(3):
        for number in (0, 3, 500):
            again = many.sources[source].window(number, LENGTH, 17)
            assert again == SOURCES[source].window(number, LENGTH, 17)
