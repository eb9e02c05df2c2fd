"""From any token of a training batch to the crawl record, through real artifacts."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.storage import LocalStore
from model.tokenizer import Tokenizer
from stages import corpus, tokens
from stages.stage import Context
from stages.text.token_shards import TokenShards
from stages.trace import Tracer
from tests.stages.corpus.crawl import english, sample_crawl

RUN = {"tokens": "t", "sequence_length": 64, "batch_tokens": 256, "steps": 40}
MIXED = RUN | {
    "tokens": ["t", "u"],
    "mixture": {
        "weights": {"t": 1, "u/more": 1, "u/crawl0": 1},
        "phases": [{"begin": 30, "weights": {"u/more": 1}}],
        "max_epochs": 99,
    },
}
SKIPS = [{"first": 2, "last": 4}]


def put(
    store: LocalStore, folder: Path, kind: str, config: Any, skips: Any = (), **parents: Any
) -> Artifact:
    return store.put(
        folder,
        {
            "id": f"{kind}-{len(store.ids()):012x}", "kind": kind, "stage": kind,
            "stage_version": 1, "code_version": "test", "config": config,
            "parents": {
                name: [p.id for p in (found if isinstance(found, list) else [found])]
                for name, found in parents.items()
            },
            "seed": 17,
            "trajectory": "t", "metrics": {"skips": list(skips)}, "seconds": 0.0, "cost": 0.0,
            "energy_kwh": 0.0,
        },
    )  # fmt: skip


def context(folder: Path) -> Context:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    return Context(seed=17, out=folder / "out", scratch=folder / "scratch")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A crawl, its corpus, tokenizer, tokens, and two runs on them: one of a mixture, which left
    batches out."""
    folder = tmp_path_factory.mktemp("trace")
    store = LocalStore(folder / "runs")
    crawl = put(store, sample_crawl(folder / "crawl"), "examples", {})
    (folder / "more").mkdir()
    lines = [json.dumps({"text": english(40 + n)}) for n in range(4)]
    (folder / "more" / "books.jsonl").write_text("\n".join(lines))
    config = corpus.Config.model_validate(
        {"crawls": ["c"], "sources": [{"path": str(folder / "more")}], "workers": 0,
         "heldout_fraction": 0.1}
    )  # fmt: skip
    work = context(folder / "corpus")
    corpus.STAGE.run(config, {"crawls": [crawl], "decontaminate": []}, work)
    texts = put(store, work.out, "corpus", config.model_dump(mode="json"), crawls=crawl)
    Tokenizer.train([english(n) for n in range(9)], 400).save(folder / "tokenizer")
    tokenizer = put(store, folder / "tokenizer", "tokenizer", {})
    work = context(folder / "tokens")
    inputs = {"corpus": texts, "tokenizer": tokenizer}
    tokens.STAGE.run(tokens.Config(corpus="c", tokenizer="t"), inputs, work)
    encoded = put(store, work.out, "tokens", {}, corpus=texts, tokenizer=tokenizer)
    for number, (run, parents) in enumerate(((RUN, [encoded]), (MIXED, [encoded, encoded]))):
        (folder / f"run{number}").mkdir()
        skips = SKIPS if number else []
        put(store, folder / f"run{number}", "checkpoint", run, skips, tokens=parents)
    return store


@pytest.mark.parametrize("mixed", [False, True])
def test_every_token_leads_to_its_record(store: LocalStore, mixed: bool) -> None:
    ids = [i for i in store.ids() if i.startswith("checkpoint")]
    tracer = Tracer(store, store.get(ids[mixed]))
    tokens_of = next(i for i in store.ids() if i.startswith("tokens"))
    tokenizer = Tokenizer.load(store.get(tokens_of).path / "tokenizer")
    seen, slowest = set(), 0.0
    for step in (0, 7, 39):
        batch = tracer.data.batch(step, SKIPS if mixed else ())
        for row, position in ((0, 0), (1, 13), (2, 40), (3, 63)):
            begun = time.perf_counter()
            trace = tracer.trace(step, row, position)
            slowest = max(slowest, time.perf_counter() - begun)
            ids_of = [*tokenizer.encode(trace.document.text), tokenizer.end_of_text_id]
            assert ids_of[trace.token] == batch.input_ids[row, position]
            archive = Path(trace.archive)
            record = archive.read_bytes()[trace.document.offset :]
            if archive.suffix == ".gz":
                record = zlib.decompressobj(31).decompress(record)
                assert f"WARC-Target-URI: {trace.document.url}\r\n".encode() in record
            else:
                assert trace.document.text.split()[0].encode() in record[:100]
            assert trace.passed[0] == "extraction" and trace.passed[-1] == "dedup"
            assert {"gopher_quality", "decontamination"} <= set(trace.passed)
            seen.add(trace.document.source)
    print(f"slowest trace {slowest * 1000:.1f} ms")
    assert len(seen) > 1


def test_places_outside_the_run_are_said(store: LocalStore) -> None:
    ids = [i for i in store.ids() if i.startswith("checkpoint")]
    tracer = Tracer(store, store.get(ids[0]))
    with pytest.raises(UserError, match="row is 4; this run has rows 0 to 3"):
        tracer.trace(0, 4, 0)
    with pytest.raises(UserError, match="no 'tokens' among its parents"):
        Tracer(store, store.get(next(i for i in store.ids() if i.startswith("corpus"))))


def test_shards_say_which_file_of_the_corpus_they_hold(store: LocalStore) -> None:
    encoded = store.get(next(i for i in store.ids() if i.startswith("tokens")))
    shards = TokenShards(encoded.file("train"))
    assert [source.name for source in shards.sources] == ["crawl0", "more"]
    assert shards.locate(0).origin == "documents-00000.parquet"
