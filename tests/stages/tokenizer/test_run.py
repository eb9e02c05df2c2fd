"""The tokenizer stage: a stratified sample within its bound, and a tokenizer that loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from model.tokenizer import Tokenizer
from stages.stage import Context
from stages.text.documents import Document, read_file, write_documents
from stages.tokenizer import STAGE, Config
from stages.tokenizer import run as tokenizer_run
from stages.tokenizer.run import language_bytes, sample, sample_shares
from tests.stages.corpus.crawl import chinese, english


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    documents = [
        Document(f"e{n}", english(n), "u", "s", "en", "heldout" if n % 10 == 0 else "train")
        for n in range(60)
    ]
    documents += [Document(f"z{n}", chinese(n), "u", "s", "zh") for n in range(6)]
    write_documents(documents, folder / "documents-00000.parquet")
    return folder


def test_shares_keep_the_bound_and_lift_rare_languages() -> None:
    sizes = {"en": 9_000_000, "zh": 1_000_000}
    shares = sample_shares(sizes, 1_000_000, 0.2)
    taken = {name: sizes[name] * shares[name] for name in sizes}
    assert sum(taken.values()) == pytest.approx(1_000_000)
    assert taken["zh"] / sum(taken.values()) == pytest.approx(0.2 / 1.1)
    assert sample_shares(sizes, 1 << 30, 0.0) == {"en": 1.0, "zh": 1.0}


def test_the_sample_depends_on_ids_only(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    sizes = language_bytes(corpus)
    half = list(sample(corpus, dict.fromkeys(sizes, 0.5)))
    assert half == list(sample(corpus, dict.fromkeys(sizes, 0.5)))
    assert 10 < len(half) < 50 and len(list(sample(corpus, dict.fromkeys(sizes, 1.0)))) == 60


def test_only_some_files_of_a_large_corpus_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for file in range(400):
        rows = [Document(f"{file}-{n}", english(n), "u", "s", "en") for n in range(5)]
        write_documents(rows, corpus / f"documents-{file:05d}.parquet")
    read: list[str] = []

    def counted(path: Path, split: str | None = None) -> Iterator[Document]:
        read.append(path.name)
        return read_file(path, split)

    monkeypatch.setattr(tokenizer_run, "read_file", counted)
    taken = list(sample(corpus, {"en": 0.05}))
    assert 30 < len(read) < 110
    assert len(taken) == pytest.approx(0.05 * 2000, rel=0.5)


def test_the_stage_writes_a_tokenizer_that_reads_back(
    tmp_path: Path, context: Context, as_artifact: Callable[..., Artifact]
) -> None:
    corpus = as_artifact(write_corpus(tmp_path / "corpus"), "corpus")
    metrics = STAGE.run(Config(corpus="c", vocabulary_size=700), {"corpus": corpus}, context)
    assert metrics["vocabulary_size"] == 700
    assert metrics["bytes_per_token"]["en"] > 2 and metrics["bytes_per_token"]["zh"] > 1
    tokenizer = Tokenizer.load(context.out)
    again = Context(seed=17, out=tmp_path / "again", scratch=tmp_path)
    again.out.mkdir()
    beside = Config(corpus="c", vocabulary_size=400, beside=str(context.out / "tokenizer.json"))
    both = STAGE.run(beside, {"corpus": corpus}, again)
    assert both["bytes_per_token_beside"] == metrics["bytes_per_token"]
    assert both["bytes_per_token"]["en"] < metrics["bytes_per_token"]["en"]
    with pytest.raises(UserError, match=r"beside: .*expected a tokenizer.json"):
        STAGE.run(beside.model_copy(update={"beside": __file__}), {"corpus": corpus}, again)
    for text in (english(77), chinese(77), "12345", "\u0000 odd \U0001f600"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("12345")) == 5
