"""Dedup over units: recall on the LSH curve, precision, chains, partitions, kills."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stages.corpus import duplicates
from stages.corpus.duplicates import Search, find_duplicates
from stages.text import components, dedup
from tests.stages.corpus.planted import Sets, dropped, here, pair, random_set, write_units

SIMILARITIES = (0.7, 0.75, 0.8, 0.85, 0.9)
PAIRS = 500


def lsh_curve(similarity: float) -> float:
    return 1 - (1 - similarity**dedup.HASHES_PER_BAND) ** dedup.BANDS


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sets]]:
    """Two units; the second holds the other half of each pair: near duplicates at each of the
    similarities, then as many decoys at 0.6.
    """
    generator = np.random.default_rng(5)
    pairs = [pair(generator, s) for s in (*SIMILARITIES, 0.6) for _ in range(PAIRS)]
    units = [[a for a, _ in pairs], [b for _, b in pairs]]
    folder = tmp_path_factory.mktemp("planted")
    write_units(folder / "units", units)
    return folder / "units", units


def search_of(units: Path, out: Path, threshold: float = 0.7, **more: int) -> Search:
    parts = [duplicates.CommittedUnit(folder) for folder in sorted(units.iterdir())]
    return Search(parts, out, threshold, **more)


def test_recall_is_above_the_lsh_curve_and_precision_is_whole(
    planted: tuple[Path, list[Sets]], tmp_path: Path
) -> None:
    units, sets = planted
    found = dropped(search_of(units, tmp_path / "out"))
    first = len(sets[0])
    true = sum(kept == document - first for document, kept in found.items())
    near = [d for d, k in found.items() if dedup.jaccard(sets[1][d - first], sets[0][k]) >= 0.7]
    print(f"precision {len(near) / len(found):.4f}, of planted pairs {true / len(found):.4f}")
    assert len(near) / len(found) >= 0.99 and true / len(found) >= 0.99
    assert not any(document - first >= len(SIMILARITIES) * PAIRS for document in found)
    for number, similarity in enumerate(SIMILARITIES):
        rows = range(first + number * PAIRS, first + (number + 1) * PAIRS)
        recall = sum(row in found for row in rows) / PAIRS
        curve = lsh_curve(similarity)
        print(f"s {similarity}: recall {recall:.3f}, LSH curve {curve:.3f}")
        assert recall >= curve


@pytest.mark.parametrize("partitions", [2, 7])
def test_any_number_of_partitions_drops_the_same(
    planted: tuple[Path, list[Sets]], tmp_path: Path, partitions: int
) -> None:
    units, _ = planted
    whole = dropped(search_of(units, tmp_path / "one", partitions=1))
    assert dropped(search_of(units, tmp_path / "many", partitions=partitions)) == whole


def test_false_candidates_in_a_chain_do_not_wipe_a_source(tmp_path: Path) -> None:
    """Pages of one site share their boilerplate: pairs of similarity 0.6 are candidates one time in
    five, so a union of candidates joins the whole site.
    """
    generator = np.random.default_rng(7)
    boilerplate = random_set(generator, 120)
    site = [np.union1d(boilerplate, random_set(generator, 40)) for _ in range(150)]
    assert 0.55 < dedup.jaccard(site[0], site[1]) < 0.65
    write_units(tmp_path / "units", [site])
    keys = np.asarray([dedup.band_keys(s) for s in site], dtype=np.uint64)
    unverified = [
        (int(bucket[0]), int(other))
        for band in keys.T for bucket in dedup.buckets(band) for other in bucket[1:]
    ]  # fmt: skip
    joined = len(union_find(unverified)) - len(set(union_find(unverified).values()))
    assert joined > 110, "without verification nearly every page would go"
    assert dropped(search_of(tmp_path / "units", tmp_path / "out")) == {}


def test_a_chain_of_true_likenesses_keeps_what_is_not_like_a_survivor(tmp_path: Path) -> None:
    """Each page is 0.9 like the next and unlike those far from it: one component, not one page."""
    generator = np.random.default_rng(8)
    pool = generator.permutation(random_set(generator, 200 + 10 * 100))
    sets = [np.sort(pool[10 * n : 10 * n + 200]) for n in range(100)]
    write_units(tmp_path / "units", [sets])
    found = dropped(search_of(tmp_path / "units", tmp_path / "out", 0.8))
    assert all(dedup.jaccard(sets[d], sets[k]) >= 0.8 and k not in found for d, k in found.items())
    assert 30 <= 100 - len(found) <= 70


def union_find(edges: list[tuple[int, int]]) -> dict[int, int]:
    """Node -> smallest node of its component: the reference that sees the whole graph."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {node: root(node) for node in parent}


@pytest.mark.parametrize("shape", ["path", "random", "stars", "pairs"])
@pytest.mark.parametrize("partitions", [1, 5])
def test_components_in_partitions_are_those_of_the_whole_graph(
    tmp_path: Path, shape: str, partitions: int
) -> None:
    source, nodes = random.Random(f"{shape} {partitions}"), 150
    numbers = source.sample(range(nodes), nodes)
    edges = {
        "path": list(pairwise(numbers)),
        "random": [(source.randrange(nodes), source.randrange(nodes)) for _ in range(260)],
        "stars": [(n, n // 40) for n in numbers],
        "pairs": [(n, n + 1) for n in range(0, nodes, 7)],
    }[shape]
    edges = [(a, b) for a, b in edges if a != b]
    search = Search([], tmp_path, 0.8, partitions=partitions)
    np.save(tmp_path / "starts.npy", np.asarray([0, nodes], dtype=np.int64))
    (tmp_path / "edges").mkdir()
    for number in range(partitions):
        part = np.asarray(edges[number::partitions], dtype=np.int64).reshape(-1, 2).T
        np.save(tmp_path / "edges" / f"{number:06d}.npy", components.both_ways(part))
    labelled = np.concatenate(
        [np.load(path) for path in duplicates.label_components(search, here)], axis=1
    )
    expected = union_find(edges)
    assert {int(a): int(r) for r, a, _ in labelled.T} == {
        a: expected[a] for a, _ in (sorted(edge) for edge in edges)
    }
    assert {(int(a), int(b)) for _, a, b in labelled.T} == {tuple(sorted(e)) for e in edges}


def test_a_search_killed_at_any_step_goes_on_there(
    planted: tuple[Path, list[Sets]], tmp_path: Path
) -> None:
    units, _ = planted
    whole = find_duplicates(search_of(units, tmp_path / "whole", partitions=2), here)
    expected = [path.read_bytes() for path in whole]
    source = random.Random(3)
    search, done = search_of(units, tmp_path / "killed", partitions=2), 0
    for _ in range(100):
        left = source.randrange(1, 6)

        def mortal(make: object, numbers: list[int]) -> None:
            nonlocal left, done
            for number in numbers:
                if not left:
                    raise KeyboardInterrupt
                left -= 1
                done += 1
                here(make, [number])  # type: ignore[arg-type]

        try:
            found = find_duplicates(search, mortal)
            break
        except KeyboardInterrupt:
            (tmp_path / "killed" / "keys" / "000001.part-9").write_bytes(b"half a file")
    assert [path.read_bytes() for path in found] == expected
    steps = sum(1 for _ in (tmp_path / "whole").glob("*/*.npy"))
    assert done == steps, "no task was done twice"
