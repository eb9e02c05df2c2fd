"""A corpus's plan: what was measured is told apart, and its own size gives its own figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cluster.artifact import Manifest
from cluster.index import read_index
from cluster.meter import Pricing
from cluster.storage import LocalStore
from stages.graph import build_graph
from stages.pipeline import run_recipe
from stages.planning import plan_figures
from stages.planning.corpus import trained_tokens
from stages.planning.corpus_rates import Estimate, Rates
from stages.planning.scaling import Reading
from stages.recipe import Recipe, load_recipe
from tests.stages.corpus.crawl import sample_crawl

RECIPE: dict[str, Any] = {
    "corpus": {"stage": "corpus", "workers": 0, "heldout_fraction": 0.2},
    "tokenizer": {"stage": "tokenizer", "corpus": "corpus", "vocabulary_size": 400},
    "tokens": {"stage": "tokens", "corpus": "corpus", "tokenizer": "tokenizer"},
}


def recipe_in(folder: Path, crawl: Path, **stages: Any) -> Recipe:
    sources = {"corpus": {**RECIPE["corpus"], "sources": [{"path": str(crawl)}]}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "r", "stages": RECIPE | sources | stages}))
    return load_recipe(str(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, Recipe]:
    """A store in which a small crawl has become tokens."""
    folder = tmp_path_factory.mktemp("planned")
    recipe = recipe_in(folder, sample_crawl(folder / "crawl"))
    store = LocalStore(folder / "runs")
    with (folder / "log").open("w") as log:
        run_recipe(recipe, store, Console(file=log))
    return store, recipe


def manifests(store: LocalStore) -> dict[str, Manifest]:
    return {name: store.manifest(entry["id"]) for name, entry in read_index(store, "r").items()}


def figures_of(recipe: Recipe, store: LocalStore) -> dict[str, Any]:
    graph = build_graph(recipe, store, sources_needed=False)
    return dict(plan_figures(recipe, graph, store)["corpus"])


def test_the_stages_note_what_their_work_took(made: tuple[LocalStore, Recipe]) -> None:
    store, recipe = made
    found = manifests(store)
    work, metrics = found["corpus"].metrics["work"], found["corpus"].metrics
    crawl = Path(recipe.steps["corpus"].config.sources[0].path)  # type: ignore[attr-defined]
    assert work["units"]["units"] == 3
    assert work["units"]["archive_bytes"] == sum(p.stat().st_size for p in crawl.iterdir())
    assert work["units"]["archived_bytes"] == metrics["bytes_in"]
    assert work["files"]["units"] == 1 and work["duplicates"]["units"] >= 4
    spent = sum(work[step]["cpu_seconds"] for step in ("units", "duplicates", "files"))
    assert 0 < spent <= found["corpus"].cpu_seconds + 0.1
    assert 0 < work["units"]["busy_share"] < 1.5
    assert work["units"]["busy_share"] < 1.1 * work["units"]["held_share"] <= 1.1
    assert 0 < work["units"]["seconds"] < work["seconds"] <= found["corpus"].seconds + 0.1
    assert found["tokens"].metrics["work"]["files"]["cpu_seconds"] > 0


def test_an_estimate_of_its_own_size_is_what_was_measured(made: tuple[LocalStore, Recipe]) -> None:
    found = manifests(made[0])
    corpus, tokens = found["corpus"], found["tokens"]
    estimate = Estimate(tokens.metrics["train_tokens"], Rates(corpus, tokens))
    ledger = json.loads((made[0].get(corpus.id).path / "ledger.json").read_text(encoding="utf-8"))
    assert estimate.record_bytes == pytest.approx(ledger["in"]["bytes"])
    work = corpus.metrics["work"]
    assert estimate.cpu_seconds == pytest.approx(
        {
            "reading": work["units"]["cpu_seconds"],
            "comparing": work["duplicates"]["cpu_seconds"],
            "writing": work["files"]["cpu_seconds"],
            "encoding": tokens.metrics["work"]["files"]["cpu_seconds"],
        }
    )
    assert estimate.stored_bytes == pytest.approx({"corpus": corpus.size, "tokens": tokens.size})
    wide = Estimate(tokens.metrics["train_tokens"], Rates(corpus, tokens), vocabulary=100_000)
    more = wide.stored_bytes["tokens"] - tokens.size
    assert more == pytest.approx(2 * tokens.metrics["train_tokens"]), "four bytes instead of two"
    tenfold = Estimate(10 * tokens.metrics["train_tokens"], Rates(corpus, tokens))
    assert tenfold.core_hours == pytest.approx(10 * estimate.core_hours)
    assert estimate.core_hours * 3600 == pytest.approx(sum(estimate.cpu_seconds.values()))
    idle = Estimate(tokens.metrics["train_tokens"], Rates(corpus, tokens), busy_share=0.5)
    assert idle.core_hours == pytest.approx(2 * estimate.core_hours)


def test_a_plan_tells_measured_from_extrapolated(made: tuple[LocalStore, Recipe]) -> None:
    store, recipe = made
    figures = figures_of(recipe, store)
    found = manifests(store)
    assert found["corpus"].id in figures["measured on"] and "a floor" in figures["measured on"]
    assert found["tokens"].id in figures["tokens measured on"]
    assert any(name.startswith("measured: scaling, 1 worker") for name in figures)
    assert "one worker count seen (1): scaling assumed" in figures["extrapolated: scaling"]
    hours = next(v for name, v in figures.items() if "1T tokens" in name and "1,000 cores" in name)
    busy = Reading(found["corpus"]).busy_share
    estimate = Estimate(1e12, Rates(found["corpus"], found["tokens"]), busy_share=busy)
    assert float(hours.replace(",", "")) == pytest.approx(estimate.core_hours / 1000, rel=1e-3)
    cost = next(value for name, value in figures.items() if "1T tokens" in name and "USD" in name)
    price = estimate.core_hours * Pricing().cpu_core_hour
    assert float(cost.split()[0].replace(",", "")) == pytest.approx(price, rel=1e-3)
    assert "extrapolated means" in figures
    for name in figures:
        assert name.split()[0] in (
            "measured",
            "measured:",
            "extrapolated",
            "extrapolated:",
            "tokens",
        )


def test_the_recipes_own_tokens_are_planned_for(
    made: tuple[LocalStore, Recipe], tmp_path: Path
) -> None:
    store, recipe = made
    crawl = Path(recipe.steps["corpus"].config.sources[0].path)  # type: ignore[attr-defined]
    base = {"stage": "pretrain", "tokens": "tokens", "steps": 100, "batch_tokens": 1 << 20,
            "sequence_length": 256, "parallel": {"workers": 1}}  # fmt: skip
    more = recipe_in(tmp_path, crawl, base=base)
    assert trained_tokens("corpus", more) == 100 << 20
    figures = figures_of(more, store)
    assert any("the recipe's tokens (1.05e+08)" in name for name in figures)
    assert "vocabulary" not in figures["extrapolated means"]
    larger = {"stage": "tokenizer", "corpus": "corpus", "vocabulary_size": 100_000}
    figures = figures_of(recipe_in(tmp_path, crawl, tokenizer=larger), store)
    assert "the recipe's 100,000 hold more text a token" in figures["extrapolated means"]


def test_a_corpus_that_holds_nothing_out_is_planned_from(tmp_path: Path) -> None:
    crawl = sample_crawl(tmp_path / "crawl")
    nothing = {**RECIPE["corpus"], "sources": [{"path": str(crawl)}], "heldout_fraction": 0}
    recipe = recipe_in(tmp_path, crawl, corpus=nothing)
    store = LocalStore(tmp_path / "runs")
    with (tmp_path / "log").open("w") as log:
        run_recipe(recipe, store, Console(file=log))
    assert manifests(store)["corpus"].metrics["heldout_bytes"] == 0
    assert any("1T tokens" in name for name in figures_of(recipe, store))


def test_without_a_measurement_a_plan_says_how_to_get_one(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, tmp_path / "nowhere")
    figures = figures_of(recipe, LocalStore(tmp_path / "empty"))
    assert list(figures) == ["not measured"]
    assert f"raylm run {recipe.arguments} --until tokens` on a sample" in figures["not measured"]
    assert "raylm run nano" in figures["not measured"]
