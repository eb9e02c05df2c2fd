"""What a run would refuse, a plan refuses, by name and before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.storage import LocalStore
from stages.graph import build_graph
from stages.importing import import_artifact
from stages.planning import check_shapes, plan_figures
from stages.recipe import Recipe, load_recipe
from tests.stages.small import recipe_from, write_model

Brought = Callable[[], tuple[LocalStore, Artifact]]


def plan(recipe: Recipe, store: LocalStore) -> None:
    plan_figures(recipe, build_graph(recipe, store, sources_needed=False), store)


def refused(recipe: Recipe, store: LocalStore, said: str) -> None:
    """By a plan and by a run alike."""
    with pytest.raises(UserError, match=said):
        plan(recipe, store)
    with pytest.raises(UserError, match=said):
        check_shapes(recipe, store)


def brought(tmp_path: Path) -> tuple[LocalStore, Artifact]:
    store = LocalStore(tmp_path / "store")
    return store, import_artifact(store, write_model(tmp_path / "model"), "llama")


def test_tokens_of_another_tokenizer(tmp_path: Path) -> None:
    second = "stages.tok2={stage: tokenizer, corpus: corpus, vocabulary_size: 3072}"
    recipe = load_recipe("tiny", [second, "stages.base.tokenizer=tok2"])
    said = "'tokens' is encoded with tokenizer, and tokenizer is 'tok2'"
    refused(recipe, LocalStore(tmp_path), said)


def test_a_start_without_its_tokenizer(tmp_path: Path) -> None:
    (write_model(tmp_path / "model") / "tokenizer.json").unlink()
    store = LocalStore(tmp_path / "store")
    import_artifact(store, tmp_path / "model", "llama")
    said = r"^stages\.base: start checkpoint-\w+ has no tokenizer\.json, so nothing says"
    refused(recipe_from("llama", tmp_path), store, said)


def test_a_start_whose_tokens_have_other_numbers(tmp_path: Path) -> None:
    store, _ = brought(tmp_path)
    other = write_model(tmp_path / "other", ["words that sums do not have"] * 9)
    (other / "config.json").unlink()
    import_artifact(store, other, "foreign")
    recipe = recipe_from("llama", tmp_path, tokenizer="foreign")
    file = Path(recipe.arguments)
    text = file.read_text().replace('"tokenizer": "tokenizer"', '"tokenizer": "foreign"')
    file.write_text(text)
    said = r"stages\.base: start checkpoint-\w+ was made with a tokenizer of .* has another"
    refused(load_recipe(str(file)), store, said)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_start_that_lost_a_file(tmp_path: Path, name: str) -> None:
    store, artifact = brought(tmp_path)
    (artifact.path / name).unlink()
    refused(recipe_from("llama", tmp_path), store, rf"{name}")


def test_a_start_cut_short(tmp_path: Path) -> None:
    store, artifact = brought(tmp_path)
    weights = artifact.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(recipe_from("llama", tmp_path), store, r"is damaged: model\.safetensors has \d+ bytes")


def test_a_start_whose_weights_are_not_its_configs(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        text.replace('"intermediate_size": 48', '"intermediate_size": 64')
    )
    store = LocalStore(tmp_path / "store")
    import_artifact(store, folder, "llama")
    said = r"^stages\.base: start llama: the weights in .* do not fit its config\.json"
    refused(recipe_from("llama", tmp_path), store, said)


def test_experts_in_no_layer(tmp_path: Path) -> None:
    recipe = load_recipe("moe", ["stages.base.model.first_k_dense_replace=99"])
    said = r"first_k_dense_replace is 99 and the model has 48 layers, so none has the 128 experts"
    refused(recipe, LocalStore(tmp_path), said)


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        (
            "small",
            ["hardware.device=a100", "stages.base.precision=float8"],
            r"^stages\.base: precision is float8 and hardware\.device a100, which .* 8\.9 or newer",
        ),
        (
            "7b",
            ["stages.base.parallel.gpu=false"],
            r"^stages\.base: parallel\.gpu is false and hardware is h100: expected",
        ),
    ],
)
def test_hardware_that_the_run_is_not_for(
    tmp_path: Path, recipe: str, changes: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        plan(load_recipe(recipe, changes), LocalStore(tmp_path))


def test_float8_is_planned_where_there_is_any(tmp_path: Path) -> None:
    plan(load_recipe("small", ["stages.base.precision=float8"]), LocalStore(tmp_path))


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_network_of_any_speed_is_no_figure(value: str) -> None:
    with pytest.raises(UserError, match=r"hardware\.network_gbit: found (-?inf|nan), expected"):
        load_recipe("small", [f"hardware.network_gbit={value}"])
