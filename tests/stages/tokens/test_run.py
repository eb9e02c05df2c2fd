"""The tokens stage: every document of both splits, in order, once, whatever was killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from model.tokenizer import Tokenizer
from stages.stage import Context
from stages.text.documents import Document, read_documents, write_documents
from stages.text.token_shards import TokenShards
from stages.tokens import STAGE, Config
from stages.tokens.run import FileEncoder
from tests.stages.corpus.crawl import english


@pytest.fixture
def inputs(tmp_path: Path, as_artifact: Callable[..., Artifact]) -> dict[str, Artifact]:
    (tmp_path / "corpus").mkdir()
    for file in range(3):
        documents = [
            Document(f"{file}-{n}", english(n), "u", "s", "en", "heldout" if n == 4 else "train")
            for n in range(5)
        ]
        write_documents(documents, tmp_path / "corpus" / f"documents-{file:05d}.parquet")
    Tokenizer.train([english(n) for n in range(9)], 400).save(tmp_path / "tokenizer")
    return {
        "corpus": as_artifact(tmp_path / "corpus", "corpus"),
        "tokenizer": as_artifact(tmp_path / "tokenizer", "tokenizer"),
    }


CONFIG = Config(corpus="c", tokenizer="t", shard_tokens=1024, workers=0)


def test_shards_decode_to_the_documents(inputs: dict[str, Artifact], context: Context) -> None:
    metrics = STAGE.run(CONFIG, inputs, context)
    tokenizer = Tokenizer.load(context.out / "tokenizer")
    index = json.loads((context.out / "index.json").read_text())
    assert index["vocabulary_size"] == tokenizer.vocabulary_size
    for split in ("train", "heldout"):
        shards = TokenShards(context.out / split)
        documents = list(read_documents(inputs["corpus"].path, split))
        tokens, numbers = shards.span(0, shards.tokens)
        assert shards.documents == len(documents) == metrics[f"{split}_documents"]
        for number, document in enumerate(documents):
            mine = tokens[numbers == number].tolist()
            assert mine[-1] == tokenizer.end_of_text_id
            assert tokenizer.decode(mine[:-1]) == document.text
        assert index[f"{split}_bytes"] == sum(len(d.text.encode()) for d in documents)
        assert index[f"{split}_tokens"] == shards.tokens


def test_a_killed_run_encodes_only_what_is_left(
    inputs: dict[str, Artifact], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = FileEncoder.__call__
    encoded: list[str] = []

    def mortal(self: FileEncoder, file: Path) -> str:
        if len(encoded) == 2:
            (self.out / f"{file.stem}.part-1").mkdir()  # half a file stays behind
            raise KeyboardInterrupt
        encoded.append(file.name)
        return encode(self, file)

    monkeypatch.setattr(FileEncoder, "__call__", mortal)
    with pytest.raises(KeyboardInterrupt):
        STAGE.run(CONFIG, inputs, context)
    monkeypatch.setattr(FileEncoder, "__call__", encode)
    (context.scratch / "documents-00002.part-1").rmdir()
    before = {p.name: p.stat().st_mtime_ns for p in context.scratch.iterdir()}
    metrics = STAGE.run(CONFIG, inputs, context)
    after = {p.name: p.stat().st_mtime_ns for p in context.scratch.iterdir()}
    assert len(before) == 2 and before.items() <= after.items() and len(after) == 3
    assert metrics["train_documents"] == 12
