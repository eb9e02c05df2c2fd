"""Token shards: what is written is read, and a batch is a pure function of (seed, step)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from stages.text.token_shards import IGNORED_LABEL, TokenShards, TokenWriter, join_shards

END = 0


def write(folder: Path, documents: list[list[int]], shard_tokens: int = 50) -> TokenShards:
    writer = TokenWriter(folder, 1000, END, shard_tokens)
    for number, tokens in enumerate(documents):
        writer.add(f"doc-{number}", tokens)
    writer.close()
    return TokenShards(folder)


@pytest.fixture
def documents() -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.integers(1, 1000, size=random.integers(1, 40)).tolist() for _ in range(60)]


@pytest.fixture
def shards(tmp_path: Path, documents: list[list[int]]) -> TokenShards:
    return write(tmp_path / "shards", documents)


def flat(documents: list[list[int]]) -> tuple[list[int], list[int]]:
    tokens = [token for document in documents for token in [*document, END]]
    owner = [number for number, document in enumerate(documents) for _ in [*document, END]]
    return tokens, owner


def test_span_crosses_shards(shards: TokenShards, documents: list[list[int]]) -> None:
    tokens, owner = flat(documents)
    assert shards.tokens == len(tokens) and len(list(shards.folder.glob("*.bin"))) > 5
    found, numbers = shards.span(0, shards.tokens)
    assert found.tolist() == tokens
    assert numbers.tolist() == owner


def test_an_epoch_visits_every_window_once(shards: TokenShards) -> None:
    count, length = shards.windows(8), 8
    starts = np.concatenate([shards.window_starts(s, 1, length, 17) for s in range(2 * count)])
    for epoch in (starts[:count], starts[count:]):
        assert sorted(epoch.tolist()) == [n * length for n in range(count)]
    assert starts[:count].tolist() != starts[count:].tolist()
    assert starts[:count].tolist() != sorted(starts[:count].tolist())


def test_batch_is_a_pure_function_of_seed_and_step(shards: TokenShards) -> None:
    shards.batch(9, 4, 8, 17)  # whatever was read before does not matter
    one, again = shards.batch(5, 4, 8, 17), TokenShards(shards.folder).batch(5, 4, 8, 17)
    for name in ("input_ids", "labels", "document_ids"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert getattr(one, name).dtype == np.int64 and getattr(one, name).shape == (4, 8)
    assert not np.array_equal(one.input_ids, shards.batch(5, 4, 8, 18).input_ids)
    assert not np.array_equal(one.input_ids, shards.batch(6, 4, 8, 17).input_ids)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_together_read_the_same_batch(shards: TokenShards, world: int) -> None:
    whole = shards.batch(2, 6, 8, 17)
    parts = [shards.batch(2, 6, 8, 17, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate([p.input_ids for p in parts]), whole.input_ids)
    assert np.array_equal(np.concatenate([p.labels for p in parts]), whole.labels)


def test_labels_are_the_next_tokens_of_the_same_document(
    shards: TokenShards, documents: list[list[int]]
) -> None:
    tokens, owner = flat(documents)
    batch = shards.batch(1, 5, 16, 17)
    for row, start in enumerate(shards.window_starts(1, 5, 16, 17)):
        for at in range(16):
            place = start + at
            same = owner[place] == owner[place + 1]
            assert batch.labels[row, at] == (tokens[place + 1] if same else IGNORED_LABEL)
            assert batch.document_ids[row, at] == owner[place]


def test_any_tokens_document_is_found(shards: TokenShards, documents: list[list[int]]) -> None:
    batch = shards.batch(3, 4, 8, 17)
    for row, start in enumerate(shards.window_starts(3, 4, 8, 17)):
        for position in range(8):
            place = shards.locate(start + position)
            source = [*documents[int(place.document_id.split("-")[1])], END]
            assert source[place.token] == batch.input_ids[row, position]


def test_joined_folders_read_like_one(tmp_path: Path, documents: list[list[int]]) -> None:
    whole = write(tmp_path / "whole", documents)
    write(tmp_path / "a", documents[:25])
    write(tmp_path / "b", documents[25:])
    joined = join_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert np.array_equal(joined.span(0, joined.tokens), whole.span(0, whole.tokens))


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "w", 100_000, END)
    writer.add("a", [99_999, 70_000])
    writer.close()
    assert TokenShards(tmp_path / "w").span(0, 3)[0].tolist() == [99_999, 70_000, END]


def test_too_little_text_says_so(tmp_path: Path) -> None:
    shards = write(tmp_path / "small", [[1, 2, 3]])
    with pytest.raises(UserError, match=r"4 tokens.*sequence of 256"):
        shards.batch(0, 1, 256, 17)
    with pytest.raises(UserError, match="not a folder of token shards"):
        TokenShards(tmp_path)
