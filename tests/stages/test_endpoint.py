"""Which model `raylm serve` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.errors import UserError
from cluster.storage import LocalStore
from stages.endpoint import endpoint_of
from stages.pipeline import run_recipe
from stages.recipe import load_recipe
from tests import toy_stages
from tests.stages.test_recipe import GOOD, write_recipe


@pytest.fixture(autouse=True)
def _toys() -> None:
    toy_stages.register()


def served(folder: Path) -> dict[str, Any]:
    serve = {"model": "base", "port": 9000, "replicas": 2}
    return {**GOOD, "store": str(folder / "runs"), "serve": serve}


def test_a_recipe_serves_what_its_last_run_made(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, served(tmp_path))
    with pytest.raises(UserError, match=r"serves 'base', which is not in .* yet"):
        endpoint_of(path, ())
    store = LocalStore(tmp_path / "runs")
    made = run_recipe(load_recipe(path), store, Console(quiet=True)).manifests
    endpoint = endpoint_of(path, ())
    assert endpoint.folder == store.get(made["base"].id).path
    assert (endpoint.name, endpoint.port, endpoint.replicas) == ("toy", 9000, 2)
    by_id = endpoint_of(made["base"].id, (), store.url)
    assert by_id.folder == endpoint.folder and by_id.port == 8000
    with pytest.raises(UserError, match="'toy/all' is of kind 'corpus', expected 'checkpoint'"):
        endpoint_of("toy/all", (), store.url)


def test_a_recipe_in_another_store_and_settings_without_a_recipe(tmp_path: Path) -> None:
    path, other = write_recipe(tmp_path, served(tmp_path)), str(tmp_path / "other")
    run_recipe(load_recipe(path, [f"store={other}"]), LocalStore(Path(other)), Console(quiet=True))
    assert endpoint_of(path, (), other).folder.is_relative_to(other)
    with pytest.raises(UserError, match="--set seed=1 with the artifact 'toy/base'"):
        endpoint_of("toy/base", ["seed=1"], other)


def test_a_damaged_model_is_not_served(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, served(tmp_path))
    store = LocalStore(tmp_path / "runs")
    run_recipe(load_recipe(path), store, Console(quiet=True))
    file = endpoint_of(path, ()).folder / "count.txt"
    size = file.stat().st_size
    file.write_text("x")
    said = rf"is damaged: count\.txt has 1 bytes, expected {size} bytes; remove .*artifacts"
    for what in (path, "toy/base"):
        with pytest.raises(UserError, match=said):
            endpoint_of(what, (), store.url)
    file.unlink()
    with pytest.raises(UserError, match=r"count\.txt is missing"):
        endpoint_of(path, ())
    with pytest.raises(UserError, match=r"stage 'more'.*is damaged"):
        more = {"stage": "count", "corpus": "all", "model": "base", "steps": 1}
        tree = served(tmp_path)
        tree["stages"] = {**tree["stages"], "more": more}
        run_recipe(load_recipe(write_recipe(tmp_path, tree)), store, Console(quiet=True))
