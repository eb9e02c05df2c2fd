"""The report over a run: what the JSON holds, and that the page is whole and self-contained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import Artifact
from cluster.meter import Pricing
from stages.report import STAGE, ReportConfig
from stages.stage import Context
from tests.stages.report.sample_run import PARENTS, SECONDS, identity, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(report.json, report.html, metrics) of the sample run."""
    folder = tmp_path_factory.mktemp("report")
    artifacts, names = make_run(folder / "run")
    names["report-own"] = "page"
    (folder / "out").mkdir()
    context = Context(
        1,
        folder / "out",
        folder / "scratch",
        name="page",
        names=names,
        pricing=Pricing(currency="EUR"),
    )
    inputs = {"stages": artifacts[:-1], "scores": artifacts[-1]}
    metrics = STAGE.run(ReportConfig(stages=["s"], title="A <run>"), inputs, context)
    facts = json.loads((context.out / "report.json").read_text(encoding="utf-8"))
    return facts, (context.out / "report.html").read_text(encoding="utf-8"), metrics


def test_json_has_what_machines_read(made: tuple[dict[str, Any], str, dict[str, Any]]) -> None:
    facts, _, metrics = made
    rows = {row["name"]: row for row in facts["stages"]}
    assert list(rows) == [*PARENTS, "page"]
    assert {row["kind"] for row in rows.values()} == {
        "corpus", "tokenizer", "tokens", "examples", "pretrain", "sft", "reward", "dpo", "ppo",
        "rlvr", "distill", "quantize", "evaluate", "report",
    }  # fmt: skip
    assert rows["base"]["seconds"] == SECONDS["base"]
    assert rows["base"]["artifact"] == identity("base")
    assert rows["base"]["metrics"]["parameters"] == 1_312_000
    assert rows["base"]["cost"] > 0 and rows["base"]["energy_kwh"] > 0
    assert rows["base"]["currency"] == "EUR" and rows["page"]["currency"] == "EUR"
    assert rows["page"]["artifact"] == "report-own" and rows["page"]["seconds"] > 0
    corpus = facts["corpus"]
    dropped = sum(step["documents"] for step in corpus["dropped"].values())
    assert corpus["in"]["documents"] == corpus["kept"]["documents"] + dropped
    assert corpus["dropped"]["quarantine"]["reasons"] == {"truncated_record": 4, "bad_charset": 2}
    assert corpus["truth"]["dedup"] == {"precision": 0.991, "recall": 0.967, "planted": 142}
    assert {"pretrain", "sft", "ppo", "rlvr", "sft_continued"} <= facts["pass_at_k"].keys()
    assert list(facts["pass_at_k"]["rlvr"]) == ["1", "2", "4", "8", "16", "32"]
    assert all(low <= v <= high for v, low, high in facts["pass_at_k"]["rlvr"].values())
    assert facts["scores"]["models"]["int8"]["perplexity"] == 21.4
    assert "gates" not in facts["scores"]
    assert [gate["name"] for gate in facts["gates"] if not gate["passed"]] == ["rlvr_gain"]
    assert (metrics["gates_passed"], metrics["gates"]) == (4, 5)


def test_lineage_holds_every_parent(made: tuple[dict[str, Any], str, dict[str, Any]]) -> None:
    lineage = made[0]["lineage"]
    assert {node["name"] for node in lineage["nodes"]} == {*PARENTS, "page"}
    edges = {(edge["from"], edge["to"], edge["as"]) for edge in lineage["edges"]}
    for name, (_, _, parents) in PARENTS.items():
        for field, above in parents.items():
            assert {(identity(parent), identity(name), field) for parent in above} <= edges
        assert (identity(name), "report-own", "stages") in edges


class _Page(HTMLParser):
    """Collects what the page would load, its text, and whether its tags close."""

    VOID = ("meta", "br", "path", "use", "line", "circle", "rect", "image", "stop")

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("src", "href", "xlink:href"):
            if values.get(name) and not str(values[name]).startswith("#"):
                self.loads.append(str(values[name]))
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_loads_nothing_and_shows_everything(
    made: tuple[dict[str, Any], str, dict[str, Any]],
) -> None:
    facts, html, _ = made
    page = _Page()
    page.feed(html)
    assert page.open == [] and page.loads == []
    assert not re.search(r"url\((?!#)", html) and "@import" not in html
    assert "A <run>" in page.text
    assert "cost, estimated (EUR)" in page.text and "USD" not in page.text
    for name in PARENTS:
        assert name in page.text
    for gate in facts["gates"]:
        assert gate["sentence"] in page.text
    for section in (
        "gates",
        "corpus",
        "training",
        "pass-at-k",
        "scores",
        "answers",
        "cost",
        "lineage",
    ):
        assert f'id="{section}"' in html
    assert "reasoner: pass rate" in page.text and "base: loss" in page.text


def test_answers_are_shown_as_text_not_as_markup(
    made: tuple[dict[str, Any], str, dict[str, Any]],
) -> None:
    _, html, _ = made
    assert "<i>82</i>" not in html and "base says &lt;i&gt;82&lt;/i&gt; 猫" in html


def test_charts_take_the_pages_colour(made: tuple[dict[str, Any], str, dict[str, Any]]) -> None:
    _, html, _ = made
    assert "currentColor" in html and "#010203" not in html


def test_a_run_without_scores_or_corpus_still_has_a_page(tmp_path: Path, context: Context) -> None:
    artifacts, names = make_run(tmp_path / "run")
    some: list[Artifact] = [a for a in artifacts if names[a.id] in ("tokenizer", "tokens")]
    STAGE.run(ReportConfig(stages=["s"]), {"stages": some}, replace(context, names=names))
    facts = json.loads((context.out / "report.json").read_text(encoding="utf-8"))
    assert facts["corpus"] is None and facts["gates"] == [] and facts["pass_at_k"] == {}
    page = _Page()
    page.feed((context.out / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and "tokenizer" in page.text
