"""A run's rows: from sources and whole artifacts, by any number of ranks, with data left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import UserError
from stages.pretrain import Config
from stages.pretrain.data import TrainingSet, heldout_sets
from stages.text.token_shards import TokenShards, TokenWriter
from stages.tune.guards import Skip

LENGTH, ROWS, SEED = 16, 6, 17
OWNERS = {1: "web/crawl", 2: "web/books", 3: "more"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two tokens artifacts, one of two sources and one of none; tokens tell them apart."""
    for name, kinds in (("web", {1: "crawl", 2: "books"}), ("more", {3: ""})):
        writer = TokenWriter(tmp_path / name, 1000, end_of_text=0, shard_tokens=500)
        for kind, source in kinds.items():
            for document in range(60):
                tokens = [kind * 100 + document] * 30
                writer.add(f"{name}-{kind}-{document}", tokens, source)
        writer.close()
    return {name: tmp_path / name for name in ("web", "more")}


def config(**fields: Any) -> Config:
    return Config.model_validate(
        {"tokens": ["web", "more"], "steps": 40, "warmup_steps": 2, "sequence_length": LENGTH,
         "batch_tokens": ROWS * LENGTH, **fields}
    )  # fmt: skip


MIXTURE = {
    "weights": {"web": 1, "more": 1},
    "phases": [{"weights": {"web/books": 2, "web/crawl": 1}}],
}


def owners(rows: np.ndarray) -> list[str]:
    return [OWNERS[int(row.max()) // 100] for row in rows]


def test_rows_come_from_the_sources_that_the_mixture_names(folders: dict[str, Path]) -> None:
    data = TrainingSet(config(mixture=MIXTURE), folders, SEED)
    assert data.names == ["web/crawl", "web/books", "more"]
    found: list[Counter[str]] = [Counter(), Counter()]
    for step in range(40):
        batch = data.batch(step)
        said = [data.names[number] for number in data.row_sources(step)]
        assert said == owners(batch.input_ids)
        found[step >= 28].update(said)
    assert found[0] == {"more": 84, "web/crawl": 42, "web/books": 42}
    assert found[1] == {"web/books": 48, "web/crawl": 24}
    passes = {name: found[0][name] + found[1][name] for name in data.names}
    windows = {source.name: source.windows(LENGTH) for source in data.sources}
    assert data.epochs() == {name: passes[name] / windows[name] for name in passes}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("mixture", [None, MIXTURE])
def test_the_ranks_parts_are_one_ranks_batch(
    folders: dict[str, Path], world: int, mixture: Any
) -> None:
    skips: list[Skip] = [{"first": 5, "last": 9}]
    for step in (0, 5, 22, 30, 39):
        whole = TrainingSet(config(mixture=mixture), folders, SEED).batch(step, skips)
        data = TrainingSet(config(mixture=mixture), folders, SEED)  # as another process has it
        parts = [data.batch(step, skips, rank, world) for rank in range(world)]
        for name in ("input_ids", "labels", "document_ids"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(joined, getattr(whole, name))
        rows = [data.row_sources(step, rank, world) for rank in range(world)]
        assert np.array_equal(np.concatenate(rows), data.row_sources(step))


def test_one_artifact_without_a_mixture_is_read_as_a_whole(folders: dict[str, Path]) -> None:
    data = TrainingSet(config(tokens="web"), {"web": folders["web"]}, SEED)
    shards = TokenShards(folders["web"])
    for step in (0, 7, 39):
        batch = shards.batch(step, ROWS, LENGTH, SEED)
        assert np.array_equal(data.batch(step).input_ids, batch.input_ids)
    assert data.names == ["web"]


def test_several_artifacts_without_a_mixture_are_read_by_size(folders: dict[str, Path]) -> None:
    data = TrainingSet(config(), folders, SEED)
    found = Counter(data.names[number] for step in range(40) for number in data.row_sources(step))
    assert found == {"web": 160, "more": 80}


Rollback = tuple[int, int]
"""The checkpoint's step gone back to, and the last step refused."""


@pytest.mark.parametrize(
    "rollbacks",
    [
        [(20, 24)],
        [(28, 32)],  # a phase's first steps, which a checkpoint stands before
        [(24, 31)],  # from within a phase to before it
        [(28, 31), (24, 30)],  # and further back
        [(8, 11), (26, 33), (30, 35)],
    ],
)
@pytest.mark.parametrize("mixture", [None, MIXTURE])
def test_nothing_is_read_again_that_a_run_went_back_from(
    folders: dict[str, Path], mixture: Any, rollbacks: list[Rollback]
) -> None:
    """Replays a run: after each return its steps take data that no step had before."""
    data = TrainingSet(config(mixture=mixture), folders, SEED)
    skips: list[Skip] = []
    read: dict[int, list[tuple[int, int]]] = {}  # step -> what its rows are in the end
    left: set[tuple[int, int]] = set()
    step = 0
    for back_to, last in [*rollbacks, (39, 39)]:
        for each in range(step, last + 1):
            read[each] = data.starts(each, skips)
        if (back_to, last) == (39, 39):
            break
        left |= {start for each in range(back_to, last + 1) for start in read[each]}
        skips.append({"first": back_to, "last": last})
        step = back_to
    numbers = Counter(source for rows in read.values() for source, _ in rows)
    assert numbers == Counter(source for each in range(40) for source, _ in data.starts(each)), (
        "each step has the mixture that it has in an undisturbed run"
    )
    windows = [source.windows(LENGTH) for source in data.sources]
    total = data.plan.samples_of([(0, 40), *((first, last + 1) for first, last in rollbacks)])
    for source, count in enumerate(total):
        if count <= windows[source]:  # nothing comes twice by a second epoch
            kept = [start for rows in read.values() for start in rows if start[0] == source]
            assert len(set(kept)) == len(kept)
            assert not left & set(kept)
    assert any(count <= windows[source] for source, count in enumerate(total))
    for each in range(min(first for first, _ in rollbacks)):
        assert read[each] == data.starts(each)


def test_a_token_is_traced_to_its_artifact_and_document(folders: dict[str, Path]) -> None:
    data = TrainingSet(config(mixture=MIXTURE), folders, SEED)
    skips: list[Skip] = [{"first": 2, "last": 2}]
    for step in (0, 3, 35):
        batch = data.batch(step, skips)
        for row in range(ROWS):
            part, place = data.locate(step, row, 9, skips)
            name, kind, document = place.document_id.split("-")
            assert name == ["web", "more"][part]
            token = batch.input_ids[row, 9]
            assert token == (0 if place.token == 30 else int(kind) * 100 + int(document))


def test_a_longer_run_shares_the_order_until_the_shorter_ones_annealing(
    folders: dict[str, Path],
) -> None:
    data = TrainingSet(config(mixture=MIXTURE, steps=80), folders, SEED)
    assert data.shares_order(28, steps=40) and not data.shares_order(29, steps=40)
    assert data.shares_order(80, steps=80)
    shorter = TrainingSet(config(mixture=MIXTURE), folders, SEED)
    assert [data.starts(step) for step in range(28)] == [shorter.starts(s) for s in range(28)]
    exact = config(mixture={"epochs": {"more": 1}, "weights": {"web": 1}}, steps=80)
    assert not TrainingSet(exact, folders, SEED).shares_order(1, steps=40)


def test_held_out_text_is_told_apart_by_source(folders: dict[str, Path]) -> None:
    found = heldout_sets(config(mixture=MIXTURE), folders)
    assert set(found) == set(OWNERS.values())
    for name, text in found.items():
        windows = text.read(range(text.windows(LENGTH)), LENGTH)
        assert set(owners(windows.input_ids)) == {name}
        assert len({row.tobytes() for row in windows.document_ids}) > 50
    assert set(heldout_sets(config(), folders)) == {"web", "more"}
    long = config(mixture=MIXTURE, sequence_length=2048, batch_tokens=2048)
    said = r"holds out the 2049 tokens of one sequence \(web/crawl 1860, web/books 1860, more 18"
    with pytest.raises(UserError, match=said):
        heldout_sets(long, folders)


def test_a_mixture_of_what_is_not_there_is_the_users_error(folders: dict[str, Path]) -> None:
    said = r"names 'web/wiki', but the tokens come from 'web/crawl', 'web/books', 'more'"
    with pytest.raises(UserError, match=said):
        TrainingSet(config(mixture={"weights": {"web/wiki": 1}}), folders, SEED)
