"""Mixtures as data order: weights, epochs, caps and phases hold exactly, in any order of asking."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from stages.text.data_plan import DataPlan, SourceRange
from stages.text.source_mixture import SourceMixture
from stages.text.token_shards import TokenShards, TokenWriter

LENGTH = 8
RANGES = [
    SourceRange("crawl", 0, 60_001),
    SourceRange("books", 60_001, 8_001),
    SourceRange("code", 68_002, 16_003),
]


def plan(phases: list[dict], steps: int = 1000, rows: int = 8, **rest: object) -> DataPlan:
    mixture = SourceMixture.model_validate({"phases": phases, **rest})
    return DataPlan.build(mixture, RANGES, LENGTH, steps, rows, seed=17)


def drawn(made: DataPlan, first: int, last: int) -> Counter[int]:
    return Counter(made.place(sample)[0] for sample in range(first, last))


def test_weights_hold_in_every_block_and_phase() -> None:
    made = plan(
        [
            {"share": 0.75, "weights": {"crawl": 0.7, "books": 0.1, "code": 0.2}},
            {"share": 0.25, "weights": {"books": 3, "code": 1}},
        ],
        max_epochs=10,
    )
    main, annealing = drawn(made, 0, 6000), drawn(made, 6000, 8000)
    assert main == {0: pytest.approx(4200, abs=3), 1: pytest.approx(600, abs=3), 2: main[2]}
    assert annealing == {1: pytest.approx(1500, abs=3), 2: pytest.approx(500, abs=3)}
    begin = drawn(made, 0, 500)  # mixed from the start on, not one source after the other
    assert begin[0] / 500 == pytest.approx(0.7, abs=0.08) and len(begin) == 3


def test_a_source_is_read_epoch_by_epoch_across_phases() -> None:
    made = plan(
        [
            {"share": 0.5, "weights": {"crawl": 1, "books": 1}},
            {"share": 0.5, "weights": {"books": 0.2, "code": 0.8}},
        ],
        max_epochs=10,
    )
    seen: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for sample in range(made.samples):
        source, epoch, window = made.place(sample)
        seen[source].append((epoch, window))
    for source, places in seen.items():
        count = RANGES[source].windows(LENGTH)
        assert len(set(places)) == len(places), "no window twice in one epoch"
        full, rest = divmod(len(places), count)
        by_epoch = Counter(epoch for epoch, _ in places)
        assert [by_epoch[e] for e in range(full)] == [count] * full and by_epoch[full] == rest
        assert made.epochs()[RANGES[source].name] == pytest.approx(len(places) / count)


def test_epochs_are_exact_and_weights_share_the_rest() -> None:
    made = plan([{"epochs": {"books": 2}, "weights": {"*": 1}}])
    counts = drawn(made, 0, made.samples)
    assert counts[1] == 2 * RANGES[1].windows(LENGTH)
    assert counts[0] / counts[2] == pytest.approx(7500 / 2000, rel=0.002)


def test_a_cap_bounds_repetition_and_the_annealing_phase_goes_first() -> None:
    made = plan(
        [
            {"share": 0.8, "weights": {"crawl": 0.5, "books": 0.5}},
            {"share": 0.2, "weights": {"books": 1}},
        ],
        max_epochs=4, caps={"books": 2.5},
    )  # fmt: skip
    assert made.epochs()["books"] == pytest.approx(2.5, abs=0.01)
    assert drawn(made, 6400, 8000) == {1: 1600}  # whole; the phase before has what is left
    assert drawn(made, 0, 6400)[1] == pytest.approx(900, abs=3)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"weights": {"wiki": 1}}], r"'wiki'.*'crawl', 'books', 'code'"),
        ([{"weights": {"books": 1}}], "raise max_epochs"),
        ([{"epochs": {"books": 9}, "weights": {"*": 1}}], "9 epochs of 'books'"),
        ([{"epochs": {"crawl": 3}, "weights": {"*": 1}}], "22500.*raise its share"),
    ],
)
def test_what_cannot_be_is_the_users_error(phases: list[dict], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(phases)


def test_the_schema_says_what_is_wrong() -> None:
    for tree, message in (
        ({"phases": [{"share": 0.5, "weights": {"a": 1}}]}, "shares make 0.5; expected 1"),
        ({"phases": [{"weights": {"a": 1}, "epochs": {"a": 1}}]}, "both a weight and epochs"),
        ({"phases": [{"weights": {"a": -1}}]}, "expected a positive number"),
        ({"phases": [{"epochs": {"a": 1}}]}, "name no source"),
    ):
        with pytest.raises(ValueError, match=message):
            SourceMixture.model_validate(tree)


def test_a_longer_run_begins_the_same() -> None:
    """What a checkpoint of a shorter run may be continued by."""
    phases = [{"weights": {"crawl": 0.6, "books": 0.1, "code": 0.3}}]
    short, long = plan(phases, steps=1000), plan(phases, steps=1500)
    agreed = short.agrees_until(long)
    assert agreed == 4096
    assert all(short.place(s) == long.place(s) for s in range(agreed))
    assert short.agrees_until(plan(phases, steps=1000)) == 8000
    other = plan([{"weights": {"crawl": 0.5, "books": 0.2, "code": 0.3}}], steps=1000)
    assert short.agrees_until(other) == 0


def test_many_sources_and_a_tiny_weight() -> None:
    ranges = [SourceRange(f"s{n}", n * 1001, 1001) for n in range(200)]
    weights = {f"s{n}": 1.0 for n in range(199)} | {"s199": 1e-4}
    mixture = SourceMixture.model_validate({"phases": [{"weights": weights}], "max_epochs": 1000})
    made = DataPlan.build(mixture, ranges, LENGTH, 4000, 25, seed=1)
    counts = Counter(made.place(s)[0] for s in range(0, made.samples, 7))
    assert len(counts) >= 199
    total = made.phases[0].taken(made.samples)
    assert sum(total) == made.samples and min(total) >= 0
    assert total[199] <= 1 and max(total[1:199]) - min(total[1:199]) <= 1


def test_batches_follow_the_plan(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, 1000, end_of_text=0, shard_tokens=500)
    owner = {}
    for number in range(90):
        source = ("crawl", "books", "code")[number // 30]
        writer.add(f"{source}-{number}", [number + 1] * 30, source)
        owner[number + 1] = source
    writer.close()
    shards = TokenShards(tmp_path)
    assert [r.name for r in shards.ranges] == ["crawl", "books", "code"]
    assert sum(r.tokens for r in shards.ranges) == shards.tokens == 90 * 31
    mixture = SourceMixture.model_validate({"phases": [{"weights": {"books": 0.5, "code": 0.5}}]})
    made = DataPlan.build(mixture, shards.ranges, LENGTH, 20, 6, 17)
    for step in range(20):
        batch = shards.batch(step, 6, LENGTH, 17, plan=made)
        parts = [shards.batch(step, 6, LENGTH, 17, rank, 2, plan=made) for rank in range(2)]
        assert np.array_equal(np.concatenate([p.input_ids for p in parts]), batch.input_ids)
        assert {owner[t] for t in batch.input_ids.flat if t} <= {"books", "code"}
        place = shards.trace(step, 3, 5, 6, LENGTH, 17, plan=made)
        token = batch.input_ids[3, 5]
        assert token == 0 or place.document_id.endswith(f"-{token - 1}")
    assert shards.packed_share(LENGTH, planned=True) > 0.99
