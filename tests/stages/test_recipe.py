"""The recipe: what is accepted, and the sentence for everything that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from model.config import ModelConfig
from stages.recipe import DIALLED, builtin_recipes, load_recipe
from tests import toy_stages

GOOD: dict[str, Any] = {
    "name": "toy",
    "stages": {
        "first": {"stage": "write", "text": "a"},
        "second": {"stage": "write", "text": "b"},
        "all": {"stage": "join", "pieces": ["first", "second"]},
        "base": {"stage": "count", "corpus": "all", "steps": 2},
    },
}


@pytest.fixture(autouse=True)
def _toys() -> None:
    toy_stages.register()


def write_recipe(folder: Path, tree: dict[str, Any], name: str = "toy.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def changed(**stages: Any) -> dict[str, Any]:
    return {**GOOD, "stages": {**GOOD["stages"], **stages}}


def test_steps_are_typed_and_ordered(tmp_path: Path) -> None:
    backwards = {**GOOD, "stages": dict(reversed(list(GOOD["stages"].items())))}
    recipe = load_recipe(write_recipe(tmp_path, backwards))
    order = list(recipe.steps)
    assert order.index("all") > max(order.index("first"), order.index("second"))
    assert order[-1] == "base"
    assert isinstance(recipe.steps["base"].config, toy_stages.CountConfig)
    assert recipe.steps["all"].parents == {"pieces": ["first", "second"], "other": []}


def test_set_changes_values_of_any_type(tmp_path: Path) -> None:
    settings = [
        "stages.base.steps=10",
        "seed=3",
        "store=elsewhere",
        "stages.all.pieces.1=first",
        "stages.first.shape.rows=4",
        "pricing.cpu_core_hour=0.1",
    ]
    recipe = load_recipe(write_recipe(tmp_path, GOOD), settings)
    base = recipe.steps["base"].config
    assert isinstance(base, toy_stages.CountConfig) and base.steps == 10
    assert (recipe.file.seed, recipe.file.store) == (3, "elsewhere")
    assert recipe.steps["all"].parents["pieces"] == ["first", "first"]
    assert recipe.steps["first"].config.model_dump()["shape"] == {"rows": 4}
    assert recipe.file.pricing.cpu_core_hour == 0.1


def test_extends_lays_one_recipe_over_another(tmp_path: Path) -> None:
    write_recipe(tmp_path, GOOD)
    over = {
        "extends": "toy.yaml",
        "name": "more",
        "stages": {
            "base": {"steps": 7},
            "first": {"stage": "write", "text": "z"},
            "second": None,
            "all": {"pieces": ["first"]},
        },
    }
    recipe = load_recipe(write_recipe(tmp_path, over, "more.yaml"))
    assert recipe.name == "more"
    assert set(recipe.steps) == {"first", "all", "base"}
    assert recipe.steps["base"].config.model_dump()["steps"] == 7
    assert recipe.steps["base"].parents["corpus"] == ["all"]


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write_recipe(tmp_path, {**GOOD, "extends": "b.yaml"}, "a.yaml")
    path = write_recipe(tmp_path, {**GOOD, "extends": "a.yaml"}, "b.yaml")
    with pytest.raises(UserError, match=r"circle: b\.yaml -> a\.yaml -> b\.yaml"):
        load_recipe(path)


BAD: list[tuple[dict[str, Any], str]] = [
    (
        changed(base={"stage": "count", "corpus": "all", "stepps": 3}),
        r"stages\.base\.stepps: there is no key 'stepps'; did you mean 'steps'",
    ),
    (
        changed(base={"stage": "count", "corpus": "all", "steps": "many"}),
        r"stages\.base\.steps: found 'many', expected a valid integer",
    ),
    (
        changed(base={"stage": "count", "corpus": "all", "steps": 0}),
        r"stages\.base\.steps: found 0, expected greater than or equal to 1",
    ),
    (changed(base={"stage": "count"}), r"stages\.base\.corpus: missing"),
    (
        changed(base={"stage": "cuont", "corpus": "all"}),
        r"stages\.base\.stage: there is no stage 'cuont'; did you mean 'count'",
    ),
    (changed(base={"corpus": "all"}), r"stages\.base has no key 'stage'"),
    (
        changed(base={"stage": "count", "corpus": "first"}),
        r"stages\.base\.corpus: found 'first', which is of kind 'examples', expected 'corpus'",
    ),
    (
        changed(
            one={"stage": "count", "corpus": "all", "model": "two"},
            two={"stage": "count", "corpus": "all", "model": "one"},
        ),
        r"circle: one -> two -> one",
    ),
    ({**GOOD, "nmae": "x"}, r"nmae: there is no key 'nmae'; did you mean 'name'"),
    ({**GOOD, "name": "artifacts"}, r"cannot be called 'artifacts'"),
    ({**GOOD, "name": "work"}, r"cannot be called 'work'"),
    ({**GOOD, "name": "../up"}, r"name: found '\.\./up'"),
    ({**GOOD, "pricing": {"gpu_hours": 1}}, r"pricing\.gpu_hours: .*did you mean 'gpu_hour'"),
    ({**GOOD, "seed": "x"}, r"seed: found 'x', expected a valid integer"),
    ({**GOOD, "seed": -1}, r"seed: found -1, expected greater than or equal to 0"),
    ({**GOOD, "seed": 10**30}, r"seed: found 1000000.*, expected less than 2147483648"),
    ({**GOOD, "memory_gib": float("inf")}, r"memory_gib: found inf, expected a finite number"),
    ({**GOOD, "store": ""}, r"store: found '', expected to have at least 1 character"),
    ({**GOOD, "stages": {}}, r"stages: found \{\}, expected to have at least 1 item"),
    ({**GOOD, "stages": ["first"]}, r"stages: found \['first'\], expected a mapping"),
    (changed(base=["count"]), r"stages\.base: found \['count'\], expected a mapping"),
    (changed(base={"stage": 5}), r"stages\.base\.stage: found 5, expected a name; known: corpus"),
    (changed(**{"../up": {"stage": "write", "text": "a"}}), r"found the name '\.\./up', expected"),
    (changed(**{"[/b]": {"stage": "write", "text": "a"}}), r"found the name '\[/b\]', expected"),
    (changed(**{"x" * 99: {"stage": "write", "text": "a"}}), r"found the name 'xxx.*up to 64"),
    ({**GOOD, "stages": {5: GOOD["stages"]["first"]}}, r"found 5 as a key, expected text"),
    (
        {**GOOD, "serve": {"model": "bose"}},
        r"serve\.model: found 'bose', expected a model of this recipe; did you mean 'base'",
    ),
    (
        {**GOOD, "serve": {"model": "all"}},
        r"serve\.model: found 'all', which is of kind 'corpus', expected a model of this recipe",
    ),
    ({"name": "none"}, r"stages: missing"),
]


@pytest.mark.parametrize(("tree", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_a_bad_recipe_is_a_clear_sentence(
    tmp_path: Path, tree: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(write_recipe(tmp_path, tree))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("steps", "expected path=value"),
        ("stages.bse.steps=1", "no stage is called 'bse'; did you mean 'base'"),
        ("stages.all.pieces.5=x", "is a list of 2"),
        ("seed.x=1", "nothing inside|seed"),
        ("seed=[1", "not a YAML value"),
        ("seed=" + "[" * 3000, "not a YAML value .*too deep"),
        ("seed=2020-13-45", "not a YAML value .*month"),
        ("extends=nano", "what a recipe extends stands in its file"),
    ],
)
def test_a_bad_setting_is_a_clear_sentence(tmp_path: Path, setting: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(write_recipe(tmp_path, {**GOOD, "seed": 1}), [setting])


def test_a_depth_that_would_change_nothing_is_refused() -> None:
    """7b gives every size that the dial decides; beside some of them it still counts."""
    with pytest.raises(UserError, match=r"base\.model\.depth: found 8 beside every size .*null"):
        load_recipe("7b", ["stages.base.model.depth=8"])
    load_recipe("7b", ["stages.base.model.depth=8", "stages.base.model.hidden_size=null"])
    load_recipe("small", ["stages.base.model.intermediate_size=512"])


def test_depth_decides_what_it_is_said_to() -> None:
    shallow, deep = (set(ModelConfig.from_depth(n, 512).model_dump().items()) for n in (2, 40))
    changed = {name for name, _ in shallow ^ deep}
    assert changed | {"head_dim", "tie_word_embeddings"} == set(DIALLED)


@pytest.mark.parametrize(
    "setting",
    [
        "stages.base.stepps=1", "stages.base.model.depht=8", "stages.base.parallel.worker=2",
        "stages.base.guards.x=1", "stages.base.metrics.x=1",
        "stages.corpus.sources.0.x=1", "stages.corpus.x=1", "stages.chat.lora.rnk=1",
        "stages.reasoner.x=1", "stages.int8.x=1", "hardware.x=1", "pricing.x=1", "serve.x=1",
        "x=1", "model.depth=8", "stage.base.steps=1",
    ],
)  # fmt: skip
def test_a_key_that_nothing_reads_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match="there is no key"):
        load_recipe("small", [setting])


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    for name in ("nowhere", "x" * 5000, "~nobody-of-that-name/x.yaml", "a\0b", str(tmp_path)):
        with pytest.raises(UserError, match="there is no recipe"):
            load_recipe(name)
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="holds list, expected a mapping"):
        load_recipe(str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(str(tmp_path / "broken.yaml"))
    (tmp_path / "twice.yaml").write_text("stages:\n  a: {stage: write}\n  a: {stage: join}\n")
    with pytest.raises(UserError, match="line 2, column 3: the key 'a' stands twice"):
        load_recipe(str(tmp_path / "twice.yaml"))


def test_what_a_command_takes_to_mean_a_recipe(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, GOOD)
    assert load_recipe(path, ["seed=3", "store=a b"]).arguments == (
        f"{path} --set seed=3 --set 'store=a b'"
    )


@pytest.mark.parametrize("name", builtin_recipes())
def test_built_in_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for step in recipe.steps.values():
        above = [parent for parents in step.parents.values() for parent in parents]
        assert set(above) <= set(recipe.steps), f"{step.name} names what the recipe has not"
