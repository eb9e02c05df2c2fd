"""Mixtures: shares that hold, an order that any worker finds, no sample twice, phases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from stages.text.mixture import BLOCK, Deal, Mixture
from stages.text.token_shards import TokenShards, TokenWriter


@pytest.fixture
def sources(tmp_path: Path) -> list[TokenShards]:
    """Two sources whose tokens tell them apart: below 1000, and above."""
    found = []
    for number in (0, 1):
        writer = TokenWriter(tmp_path / str(number), vocabulary_size=60_000, end_of_text=0)
        for document in range(20):
            begin = 1 + 1000 * number + document * 40
            writer.add(f"{number}-{document}", list(range(begin, begin + 40)))
        writer.close()
        found.append(TokenShards(tmp_path / str(number)))
    return found


def test_shares_hold_in_every_block(sources: list[TokenShards]) -> None:
    mixture = Mixture(sources, [Deal(0, (0.7, 0.3))])
    for block in (0, 5):
        places = [mixture.place(block * BLOCK + i, seed=3)[0] for i in range(BLOCK)]
        assert Counter(places) == {0: 717, 1: 307}


def test_each_source_is_read_without_gaps_or_repeats(sources: list[TokenShards]) -> None:
    mixture = Mixture(sources, [Deal(0, (3, 1))])
    places = [mixture.place(sample, seed=3) for sample in range(2 * BLOCK)]
    for source, count in ((0, 1536), (1, 512)):
        assert sorted(n for s, n in places if s == source) == list(range(count))


def test_a_phase_changes_shares_and_goes_on_in_the_text(sources: list[TokenShards]) -> None:
    mixture = Mixture(sources, [Deal(0, (1, 1)), Deal(600, (0, 1))])
    assert {mixture.place(sample, 1)[0] for sample in range(600, 2000)} == {1}
    places = [mixture.place(sample, 1) for sample in range(2000)]
    assert len(set(places)) == len(places)


def test_ranks_parts_are_one_ranks_batch(sources: list[TokenShards]) -> None:
    mixture = Mixture(sources, [Deal(0, (2, 1))])
    whole = mixture.batch(4, 7, 16, seed=5)
    parts = [mixture.batch(4, 7, 16, 5, rank, 3) for rank in range(3)]
    assert np.array_equal(whole.input_ids, np.concatenate([part.input_ids for part in parts]))
    rows = np.concatenate([mixture.row_sources(4, 7, 5, rank, 3) for rank in range(3)])
    assert np.array_equal(rows, whole.input_ids.max(axis=1) > 1000)


def test_a_share_for_each_source(sources: list[TokenShards]) -> None:
    with pytest.raises(UserError, match="3 shares for 2 tokens artifacts"):
        Mixture(sources, [Deal(0, (1, 1, 1))])
