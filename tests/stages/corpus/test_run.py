"""The corpus stage on a small crawl: the ledger is exact, resuming changes no byte."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.storage import LocalStore
from stages.corpus import STAGE, Config
from stages.corpus import run as corpus_run
from stages.corpus.unit import UnitWorker
from stages.pipeline import run_recipe
from stages.recipe import load_recipe
from stages.stage import Context
from stages.tasks.problem import Problem, write_problems
from stages.text import file_hashes
from stages.text.documents import read_documents
from tests.opened_files import opened_below
from tests.stages.corpus.crawl import english, html, record, sample_crawl, write_warc

Dress = Callable[..., Artifact]


def fresh(folder: Path) -> Context:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Context(seed=17, out=folder / "out", scratch=folder / "scratch")


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def inputs(tmp_path: Path, as_artifact: Dress) -> dict[str, list[Artifact]]:
    problems = tmp_path / "problems"
    problems.mkdir()
    question = "How many legs do seven red spiders have?"
    leak = Problem("p0", "arithmetic", "en", question, "56", {"kind": "number"}, "7", "eval")
    write_problems(problems / "problems.jsonl", [leak])
    return {
        "crawls": [as_artifact(sample_crawl(tmp_path / "crawl"), "examples")],
        "decontaminate": [as_artifact(problems, "examples")],
    }


CONFIG = Config(crawls=["c"], decontaminate=["p"], workers=0, heldout_fraction=0.2)


def test_ledger_is_exact_and_every_page_meets_its_fate(
    inputs: dict[str, list[Artifact]], tmp_path: Path
) -> None:
    context = fresh(tmp_path / "run")
    metrics = STAGE.run(CONFIG, inputs, context)
    ledger = json.loads((context.out / "ledger.json").read_text())
    for unit in ("documents", "bytes"):
        dropped = sum(c[unit] for by in ledger["dropped"].values() for c in by.values())
        broken = (
            sum(ledger["quarantined"].values())
            if unit == "documents"
            else ledger["quarantined_bytes"]
        )
        assert ledger["in"][unit] == ledger["kept"][unit] + dropped + broken
    assert {s: set(by) for s, by in ledger["dropped"].items()} == {
        "read": {"http_4xx", "media_type"},
        "language": {"de"},
        "gopher_repetition": {"top_2_gram"},
        "decontamination": {"exact"},
        "dedup": {"exact", "near"},
    }
    documents = {d.url: d for d in read_documents(context.out)}
    assert metrics["documents"] == len(documents) == ledger["kept"]["documents"]
    assert sum(d.language == "zh" for d in documents.values()) == 4
    assert {"http://a.org/0", "http://a.org/1"} <= set(documents)  # the first of its group stays
    assert not {"http://b.org/copy", "http://b.org/near", "http://b.org/leak"} & set(documents)
    assert documents["http://b.org/pii"].text.endswith("Write to <email> or <ip>, please.")
    assert {d.split for d in documents.values()} == {"train", "heldout"}
    assert "Login" not in documents["http://a.org/0"].text


def test_a_truncated_archive_is_quarantined_and_the_rest_read(
    inputs: dict[str, list[Artifact]], tmp_path: Path
) -> None:
    context = fresh(tmp_path / "run")
    STAGE.run(CONFIG, inputs, context)
    urls = {d.url for d in read_documents(context.out)}
    assert {"http://c.org/0", "http://c.org/1"} <= urls
    rows = [json.loads(x) for x in (context.out / "quarantine.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == ["truncated_archive"]
    archive = inputs["crawls"][0].path / "crawl-00002.warc.gz"
    assert archive.read_bytes()[rows[0]["offset"] :][:3] == b"\x1f\x8b\x08"


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_run_killed_between_units_gives_the_same_bytes(
    inputs: dict[str, list[Artifact]],
    tmp_path: Path,
    killed_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fresh(tmp_path / "whole")
    STAGE.run(CONFIG, inputs, whole)
    done: list[str] = []
    work = UnitWorker.__call__

    def mortal(self: UnitWorker, job: corpus_run.Job) -> str:
        if len(done) == killed_after:
            (self.folder / f"{job.folder}.part-1").mkdir()  # half a unit stays behind
            raise KeyboardInterrupt
        done.append(job.folder)
        return work(self, job)

    killed = fresh(tmp_path / "killed")
    monkeypatch.setattr(UnitWorker, "__call__", mortal)
    with pytest.raises(KeyboardInterrupt):
        STAGE.run(CONFIG, inputs, killed)
    again: list[str] = []

    def counted(self: UnitWorker, job: corpus_run.Job) -> str:
        again.append(job.folder)
        return work(self, job)

    monkeypatch.setattr(UnitWorker, "__call__", counted)
    STAGE.run(CONFIG, inputs, killed)
    assert len(again) == 3 - killed_after and not set(again) & set(done)
    assert bytes_of(killed.out) == bytes_of(whole.out)
    assert not list((killed.scratch / "units").glob("*.part-*"))


def test_sources_that_cannot_be_read_are_the_users_errors(tmp_path: Path) -> None:
    def run(source: Path) -> None:
        config = Config.model_validate({"sources": [{"path": str(source)}], "workers": 0})
        if STAGE.fingerprint is not None:
            STAGE.fingerprint(config)
        STAGE.run(
            config, {"crawls": [], "decontaminate": []}, fresh(tmp_path / f"run-{source.name}")
        )

    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "missing.warc.gz")
    (tmp_path / "empty.warc.gz").touch()
    with pytest.raises(UserError, match=r"nothing could be read.*empty_file"):
        run(tmp_path / "empty.warc.gz")
    (tmp_path / "noise.warc.gz").write_bytes(b"this is not an archive" * 9)
    with pytest.raises(UserError, match=r"nothing could be read.*not_an_archive"):
        run(tmp_path / "noise.warc.gz")


def test_config_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="nothing to read"):
        Config()
    with pytest.raises(ValueError, match="exactly one of path"):
        Config.model_validate({"sources": [{"format": "jsonl"}]})


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n')
    config = Config.model_validate({"sources": [{"path": str(path)}]})
    assert STAGE.fingerprint is not None
    before = STAGE.fingerprint(config)
    assert before == STAGE.fingerprint(config)
    path.write_text('{"text": "two"}\n')
    assert before != STAGE.fingerprint(config)


@pytest.mark.dist
def test_ray_data_gives_the_same_bytes(
    inputs: dict[str, list[Artifact]], tmp_path: Path, ray_session: None
) -> None:
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    STAGE.run(CONFIG, inputs, one)
    STAGE.run(CONFIG.model_copy(update={"workers": 2}), inputs, two)
    assert bytes_of(one.out) == bytes_of(two.out)


def test_a_new_dump_is_compared_with_a_published_corpus(tmp_path: Path, as_artifact: Dress) -> None:
    """What an older corpus holds is dropped from the new one, which names the older document."""
    old = [record(f"http://old.org/{n}", html(english(n))) for n in range(5)]
    write_warc(tmp_path / "old" / "crawl-00000.warc.gz", old)
    new = [
        record("http://new.org/same", html(english(1))),
        record("http://new.org/near", html(english(2) + "\nPrinted in the evening of that day.")),
        *(record(f"http://new.org/{n}", html(english(n))) for n in (11, 12)),
        record("http://new.org/twice", html(english(12))),
    ]
    write_warc(tmp_path / "new" / "crawl-00000.warc.gz", new)

    def config(name: str) -> Config:
        source = {"path": str(tmp_path / name)}
        return Config.model_validate({"sources": [source], "workers": 0})

    first, second = fresh(tmp_path / "first"), fresh(tmp_path / "second")
    STAGE.run(config("old"), {"crawls": [], "decontaminate": []}, first)
    published = as_artifact(first.out, "corpus")
    inputs = {"crawls": [], "decontaminate": [], "published": [published]}
    STAGE.run(config("new"), inputs, second)
    kept = {d.url for d in read_documents(second.out)}
    assert kept == {"http://new.org/11", "http://new.org/12"}
    ledger = json.loads((second.out / "ledger.json").read_text())
    reasons = {r: counts["documents"] for r, counts in ledger["dropped"]["dedup"].items()}
    assert reasons == {"exact_published": 1, "near_published": 1, "exact": 1}
    lines = (second.out / "dropped.jsonl").read_text().splitlines()
    samples = {row["url"]: row for row in map(json.loads, lines)}
    assert samples["http://new.org/near"]["kept"]["url"] == "http://old.org/2"
    signatures = first.out / "signatures-00000.npy"
    fewer_bands = np.load(signatures)[:, :-1]
    signatures.unlink()
    for leave in (lambda: None, lambda: np.save(signatures, fewer_bands)):
        leave()
        with pytest.raises(UserError, match=r"holds no signatures-00000.npy.*make it again"):
            STAGE.run(config("new"), inputs, fresh(tmp_path / "third"))


def test_files_hold_whole_units_and_every_document_once(
    inputs: dict[str, list[Artifact]], tmp_path: Path
) -> None:
    one, many = fresh(tmp_path / "one"), fresh(tmp_path / "many")
    STAGE.run(CONFIG, inputs, one)
    STAGE.run(CONFIG.model_copy(update={"documents_per_file": 1}), inputs, many)
    assert len(list(many.out.glob("documents-*.parquet"))) == 3
    assert list(read_documents(many.out)) == list(read_documents(one.out))
    ledgers = [json.loads((c.out / "ledger.json").read_text()) for c in (one, many)]
    assert ledgers[0] == ledgers[1]


def test_repeated_spans_are_cut_where_asked(tmp_path: Path) -> None:
    notice = "This long notice stands under every page of the site and says the same thing to all."
    pages = [record(f"http://a.org/{n}", html(f"{english(n)}\n{notice}")) for n in range(4)]
    write_warc(tmp_path / "crawl" / "crawl-00000.warc.gz", pages[:2])
    write_warc(tmp_path / "crawl" / "crawl-00001.warc.gz", pages[2:])
    kept = {}
    for words in (None, 12):
        config = Config.model_validate(
            {"sources": [{"path": str(tmp_path / "crawl")}], "workers": 0,
             "repeated_span_words": words, "heldout_fraction": 0}
        )  # fmt: skip
        context = fresh(tmp_path / f"run-{words}")
        metrics = STAGE.run(config, {"crawls": [], "decontaminate": []}, context)
        kept[words] = {d.url: d.text for d in read_documents(context.out)}
    assert all(text.endswith(notice) for text in kept[None].values())
    assert [text.endswith(notice) for text in kept[12].values()] == [True, False, False, False]
    assert metrics["bytes_of_repeated_spans"] >= 3 * len(notice)
    assert set(kept[12]) == set(kept[None])


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_in_which_workers_take_units_and_files_changes_no_byte(
    inputs: dict[str, list[Artifact]],
    tmp_path: Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a scheduler does: every step's tasks in a shuffled order, each by a new worker."""
    whole, shuffled = fresh(tmp_path / "whole"), fresh(tmp_path / "shuffled")
    config = CONFIG.model_copy(update={"documents_per_file": 1})
    STAGE.run(config, inputs, whole)
    draw = random.Random(seed)

    def in_any_order(
        make: Callable[[], Callable[[Any], str]], items: Sequence[Any], *_: object
    ) -> Iterator[int]:
        for number in draw.sample(range(len(items)), len(items)):
            make()(items[number])
            yield number

    monkeypatch.setattr(corpus_run, "stream", in_any_order)
    STAGE.run(config, inputs, shuffled)
    assert bytes_of(shuffled.out) == bytes_of(whole.out)


def test_a_rerun_of_a_finished_stage_reads_nothing(
    inputs: dict[str, list[Artifact]], tmp_path: Path
) -> None:
    """Killed after its last unit of work and before it was published: the sources are not opened,
    and other content under their names would not be seen.
    """
    first, again = fresh(tmp_path / "run"), fresh(tmp_path / "again")
    STAGE.run(CONFIG, inputs, first)
    crawl = inputs["crawls"][0].path
    for path in crawl.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    with opened_below(crawl) as opened, opened_below(first.scratch / "units") as units:
        STAGE.run(CONFIG, inputs, replace(again, scratch=first.scratch))
        assert opened == []
        assert not any(path.endswith((".parquet", ".u64", ".npy")) for path in units)
    assert bytes_of(again.out) == bytes_of(first.out)


def test_a_finished_recipe_opens_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED_S", 0.0)
    crawl = sample_crawl(tmp_path / "crawl")
    stages = {"corpus": {"stage": "corpus", "sources": [{"path": str(crawl)}], "workers": 0}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "stages": stages}))
    store = LocalStore(tmp_path / "runs")
    made = []
    for _ in range(2):
        with opened_below(crawl) as opened, (tmp_path / "log").open("w") as log:
            recipe = load_recipe(str(tmp_path / "r.yaml"))
            made.append(run_recipe(recipe, store, Console(file=log)).made)
    assert made == [["corpus"], []] and opened == []
