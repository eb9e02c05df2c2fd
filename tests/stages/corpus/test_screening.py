"""What the config of screening does to a small crawl: every refusal is in the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.corpus import STAGE, Config
from stages.stage import Context
from stages.text.documents import Document, read_documents
from tests.stages.corpus.crawl import chinese, english, html, record, write_warc

Run = Callable[..., tuple[dict[str, Document], dict[str, Any]]]
MENU = "Sign up for the letter of this site today"


@pytest.fixture
def run(tmp_path: Path, as_artifact: Callable[..., Artifact]) -> Run:
    """Runs the stage on eight pages of two hosts, in two units."""
    pages = [
        (f"http://news.example.org/{n}", html(f"{english(n)}\n{MENU}\nPage {n} of the whole list."))
        for n in range(5)
    ]
    pages += [("http://bad.example.net/a", html(english(20)))]
    pages += [("http://cn.example.org/1", html(chinese(1)))]
    pages += [
        ("http://pii.example.org/1", html(english(30) + "\nHer card is 4111 1111 1111 1111."))
    ]
    crawl = tmp_path / "crawl"
    for number in range(2):
        records = [record(url, body) for url, body in pages[number::2]]
        write_warc(crawl / f"c-{number}.warc.gz", records)

    def go(**options: Any) -> tuple[dict[str, Document], dict[str, Any]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in ("out", "scratch"):
            (folder / name).mkdir(parents=True)
        context = Context(seed=17, out=folder / "out", scratch=folder / "scratch")
        config = Config(crawls=["c"], workers=0, **options)
        inputs = {"crawls": [as_artifact(crawl, "examples")], "decontaminate": []}
        STAGE.run(config, inputs, context)
        ledger = json.loads((context.out / "ledger.json").read_text())
        return {d.url: d for d in read_documents(context.out)}, ledger["dropped"]

    return go


def test_by_default_everything_good_is_kept(run: Run) -> None:
    documents, dropped = run()
    assert len(documents) == 8 and dropped == {}
    assert documents["http://pii.example.org/1"].text.endswith("Her card is <credit_card>.")


def test_blocked_domains_and_word_lists(run: Run, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("example.net\n")
    (tmp_path / "words").write_text("风筝\n")
    documents, dropped = run(
        blocked_domains=[str(tmp_path / "domains")],
        word_lists=[{"list": str(tmp_path / "words"), "language": "zh"}],
    )
    assert len(documents) == 6
    assert dropped["blocklist"]["domain"]["documents"] == 1
    assert dropped["word_list"]["words"]["documents"] == 1


def test_personal_data_may_drop_a_document(run: Run) -> None:
    documents, dropped = run(personal_data={"credit_card": "drop"})
    assert "http://pii.example.org/1" not in documents
    assert dropped["personal_data"]["credit_card"]["documents"] == 1
    documents, _ = run(personal_data={"credit_card": "keep"})
    assert "4111 1111" in documents["http://pii.example.org/1"].text


def test_lines_that_a_host_repeats_are_left_out_across_units(run: Run) -> None:
    documents, _ = run(boilerplate_pages=4)
    pages = [d.text for url, d in documents.items() if "news" in url]
    assert len(pages) == 5
    assert not any(MENU in text or "of the whole list" in text for text in pages)
    assert all("harbour" in text for text in pages)


def test_one_script_of_chinese(run: Run) -> None:
    documents, dropped = run(languages=["en", "zh-Hant"])
    assert "http://cn.example.org/1" not in documents
    assert dropped["language"]["zh-Hans"]["documents"] == 1
    documents, _ = run(languages=["en", "zh-Hans"])
    assert documents["http://cn.example.org/1"].language == "zh"


def test_a_threshold_of_its_own(run: Run) -> None:
    documents, dropped = run(language_thresholds={"en": 1.0001})
    assert set(documents) == {"http://cn.example.org/1"}
    assert dropped["language"]["uncertain"]["documents"] == 7


def test_mistakes_are_told_before_any_work(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no list at"):
        run(blocked_domains=[str(tmp_path / "none")])
    with pytest.raises(UserError, match="word_lists names languages de"):
        run(word_lists=[{"list": str(_words(tmp_path)), "language": "de"}])
    with pytest.raises(UserError, match="no such file"):
        run(language_model=str(tmp_path / "none.bin"))
    with pytest.raises(ValidationError, match="boilerplate_pages is 1"):
        Config(crawls=["c"], boilerplate_pages=1)
    with pytest.raises(ValidationError):
        Config(crawls=["c"], personal_data={"fingerprint": "mask"})


def _words(folder: Path) -> Path:
    path = folder / "list"
    path.write_text("wort\n")
    return path
