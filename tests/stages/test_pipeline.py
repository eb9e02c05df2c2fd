"""The pipeline on small real stages: ids, cache, resume, publishing, and what a failure says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.artifact import verify
from cluster.errors import UserError
from cluster.storage import IMPORTS, LocalStore, Store, open_store, read_index, write_index
from stages.graph import build_graph
from stages.pipeline import Outcome, StageFailure, plain, run_recipe
from stages.recipe import load_recipe
from stages.sweep import sweep
from tests import toy_stages
from tests.stages.test_recipe import GOOD, write_recipe


@pytest.fixture(autouse=True)
def _toys() -> None:
    toy_stages.register()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def run(folder: Path, store: Store, *settings: str, tree: Any = GOOD, **options: Any) -> Outcome:
    recipe = load_recipe(write_recipe(folder, tree), settings)
    return run_recipe(recipe, store, Console(quiet=True), **options)


def ids(folder: Path, store: Store, *settings: str) -> dict[str, str]:
    graph = build_graph(load_recipe(write_recipe(folder, GOOD), settings), store)
    return {name: node.id for name, node in graph.nodes.items()}


def test_a_run_makes_whole_artifacts_and_a_second_does_nothing(
    tmp_path: Path, store: LocalStore
) -> None:
    first = run(tmp_path, store)
    assert first.made == ["first", "second", "all", "base"]
    for artifact_id in store.ids():
        assert verify(store.get(artifact_id)) == []
    base = store.get(first.manifests["base"].id)
    assert base.file("count.txt").read_text() == "a+b*2"
    assert base.metrics == {"steps": 2, "resumed_at": 0, "loss": None}
    assert base.manifest.parents == {"corpus": [first.manifests["all"].id]}
    assert base.manifest.seed == 17 and base.manifest.seconds >= 0
    index = read_index(store, "toy")
    assert index["base"] == {"id": base.id, "stage": "count"}
    state = json.loads(store.read("toy/run.json") or b"")
    assert [stage["name"] for stage in state["stages"]] == list(first.manifests)
    second = run(tmp_path, store)
    assert second.made == []
    assert second.manifests == first.manifests


def test_scratch_goes_unless_a_longer_run_may_continue_it(
    tmp_path: Path, store: LocalStore
) -> None:
    outcome = run(tmp_path, store)
    left = {path.name for path in store.work.iterdir()}
    assert left == {outcome.graph.nodes["base"].work_name}
    longer = run(tmp_path, store, "stages.base.steps=5")
    assert longer.made == ["base"]
    assert longer.manifests["base"].metrics["resumed_at"] == 2
    assert longer.manifests["base"].id != outcome.manifests["base"].id
    assert longer.manifests["base"].trajectory == outcome.manifests["base"].trajectory


def test_what_decides_the_content_decides_the_id(tmp_path: Path, store: LocalStore) -> None:
    plain_ids = ids(tmp_path, store)
    assert ids(tmp_path, store, "stages.first.delay_s=9") == plain_ids, "execution is left out"
    assert ids(tmp_path, store, "stages.first.description=x", "name=other") == plain_ids
    text = ids(tmp_path, store, "stages.first.text=z")
    same = {name for name in plain_ids if text[name] == plain_ids[name]}
    assert same == {"second"}, "what hangs on a changed text changes too"
    seed = ids(tmp_path, store, "seed=18")
    assert not set(seed.values()) & set(plain_ids.values())
    source = tmp_path / "source.txt"
    source.write_text("one")
    before = ids(tmp_path, store, f"stages.first.source={source}")["first"]
    source.write_text("two")
    assert ids(tmp_path, store, f"stages.first.source={source}")["first"] != before


def test_until_and_only(tmp_path: Path, store: LocalStore) -> None:
    assert run(tmp_path, store, until="all").made == ["first", "second", "all"]
    assert run(tmp_path, store, only=["base"]).made == ["base"]
    with pytest.raises(UserError, match=r"stage 'all': pieces needs 'first'.*--until all"):
        run(tmp_path, store, "seed=2", only=["all"])
    with pytest.raises(UserError, match="no stage is called 'bas'; did you mean 'base'"):
        run(tmp_path, store, until="bas")


def test_a_parent_may_be_an_artifact_or_an_imported_name(tmp_path: Path, store: LocalStore) -> None:
    made = run(tmp_path, store).manifests
    write_index(store, IMPORTS, {"bought": {"id": made["all"].id, "stage": "import"}})
    for name in (made["all"].id, "bought"):
        tree = {"name": "late", "stages": {"base": {"stage": "count", "corpus": name, "steps": 2}}}
        outcome = run(tmp_path, store, tree=tree)
        assert outcome.manifests["base"].id == made["base"].id
        assert outcome.made == []
    for wrong, sentence in [("bouht", "did you mean 'bought'"), (made["first"].id, "of kind")]:
        tree = {"name": "late", "stages": {"base": {"stage": "count", "corpus": wrong}}}
        with pytest.raises(UserError, match=rf"stages\.base\.corpus: found '{wrong}'.*{sentence}"):
            run(tmp_path, store, tree=tree)


def test_a_failure_says_what_and_how_to_go_on(tmp_path: Path, store: LocalStore) -> None:
    with pytest.raises(UserError, match="stage 'second': found a bad text"):
        run(tmp_path, store, "stages.second.fail=user")
    with pytest.raises(StageFailure, match="stage 'second' failed: ZeroDivisionError: nothing"):
        run(tmp_path, store, "stages.second.fail=bug")
    log = store.local("toy") / "logs" / "second.log"
    assert "Traceback" in log.read_text()
    with pytest.raises(StageFailure, match=r"disk that holds .* is full .*raylm gc"):
        run(tmp_path, store, "stages.second.fail=disk")
    assert set(read_index(store, "toy")) == {"first"}, "what finished is named, the rest not"
    assert run(tmp_path, store).made == ["second", "all", "base"]


def test_too_little_memory_is_said_before_the_start(tmp_path: Path, store: LocalStore) -> None:
    with pytest.raises(UserError, match=r"needs 1e\+06 GiB of memory, found"):
        run(tmp_path, store, "memory_gib=1000000")
    assert store.ids() == []


def test_one_writer(tmp_path: Path, store: LocalStore) -> None:
    with store.lease("another run"), pytest.raises(UserError, match="written by another run"):
        run(tmp_path, store)
    assert run(tmp_path, store).made


def test_sweep_keeps_what_a_run_names_or_needs(tmp_path: Path, store: LocalStore) -> None:
    old = run(tmp_path, store).manifests
    new = run(tmp_path, store, "stages.first.text=z").manifests
    stale = {old[name].id for name in ("first", "all", "base")}
    freed = sweep(store, dry_run=True)
    assert freed.count >= 3 and set(store.ids()) > stale
    sweep(store, dry_run=False)
    assert set(store.ids()) == {manifest.id for manifest in new.values()}
    assert {path.name for path in store.work.iterdir()} == {f"count-{new['base'].trajectory}"}


def test_the_same_run_on_an_object_store(tmp_path: Path) -> None:
    remote = open_store("memory://bucket/runs", cache=tmp_path / "cache")
    made = run(tmp_path, remote).manifests
    assert run(tmp_path, remote).made == []
    elsewhere = open_store("memory://bucket/runs", cache=tmp_path / "other")
    assert run(tmp_path, elsewhere).made == []
    fetched = elsewhere.get(made["base"].id)
    assert fetched.file("count.txt").read_text() == "a+b*2"
    assert verify(fetched) == []


def test_metrics_become_json_values() -> None:
    import numpy as np

    metrics = {"a": np.float32(0.5), "b": np.arange(2), 3: float("inf"), "d": (Path("x"), None)}
    assert plain(metrics) == {"a": 0.5, "b": [0, 1], "3": None, "d": ["x", None]}
