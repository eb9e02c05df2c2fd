"""Recipe nano through the command, and what its report says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import raylm

NANO_STAGES = {
    "examples",
    "corpus",
    "tokenizer",
    "tokens",
    "pretrain",
    "sft",
    "quantize",
    "evaluate",
    "report",
}
RUN_LIMIT_S = 540


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """The folder of a finished run, and what the command said."""
    folder = tmp_path_factory.mktemp("nano")
    done = raylm(folder, "run", "nano", "--set", f"store={folder / 'runs'}", limit_s=RUN_LIMIT_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder, done


@pytest.mark.e2e
def test_report_tells_of_every_stage(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    report = json.loads((folder / "runs" / "nano" / "report.json").read_text(encoding="utf-8"))
    assert {row["kind"] for row in report["stages"]} == NANO_STAGES
    for row in report["stages"]:
        assert row["seconds"] > 0 and row["cost"] >= 0 and row["energy_kwh"] >= 0
        made = folder / "runs" / "artifacts" / row["artifact"] / "manifest.json"
        assert json.loads(made.read_text(encoding="utf-8"))["stage"] == row["kind"]
    base = next(row for row in report["stages"] if row["kind"] == "pretrain")
    assert base["metrics"]["steps"] > 0 and base["metrics"]["flops"] > 0

    corpus = report["corpus"]
    dropped = sum(step["documents"] for step in corpus["dropped"].values())
    assert corpus["in"]["documents"] == corpus["kept"]["documents"] + dropped
    assert 0 < corpus["kept"]["documents"] < corpus["in"]["documents"]
    assert 0 < corpus["truth"]["dedup"]["recall"] <= 1

    assert {"pretrain", "sft"} <= report["pass_at_k"].keys()
    scores = report["scores"]["models"]
    assert all(model["perplexity"] > 1 for model in scores.values())
    gates = {gate["name"]: gate for gate in report["gates"]}
    assert gates["decontaminated"]["passed"], gates["decontaminated"]["sentence"]
    assert gates["quantized_loss"]["passed"], gates["quantized_loss"]["sentence"]
    names = {node["name"] for node in report["lineage"]["nodes"]}
    assert {"crawl", "corpus", "base", "chat", "int8", "scores", "report"} <= names


@pytest.mark.e2e
def test_page_is_whole_and_the_command_points_at_it(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = finished
    page = (folder / "runs" / "nano" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "report.html" in done.stdout


@pytest.mark.e2e
def test_running_again_does_nothing(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = finished
    store = folder / "runs" / "artifacts"
    before = {path: os.stat(path).st_mtime_ns for path in store.glob("*/manifest.json")}
    again = raylm(folder, "run", "nano", "--set", f"store={folder / 'runs'}", limit_s=60)
    assert again.returncode == 0 and "Nothing was to be done" in again.stdout
    assert before == {path: os.stat(path).st_mtime_ns for path in store.glob("*/manifest.json")}
