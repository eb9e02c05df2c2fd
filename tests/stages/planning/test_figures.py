"""Plans: figures against independent arithmetic, and bad shapes refused before a run."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage import LocalStore
from model import pretrained
from stages.graph import build_graph
from stages.hardware import DEVICES, Hardware
from stages.importing import import_artifact
from stages.planning import check_shapes, plan_figures
from stages.planning.machine import Machine, planned_machine
from stages.planning.run_shape import RunShape
from stages.recipe import Recipe, load_recipe
from tests.stages.small import recipe_from, write_model

LAPTOP = Machine(
    name="laptop", products=1e11, attention=5e10, bandwidth=1e10, streaming=1e10, memory=8e9,
    link=5e9, network=1e9, per_node=2, kernel_s=0.0, peak=1e11,
)  # fmt: skip


def figures_of(recipe: Recipe, store: Path) -> dict[str, Any]:
    opened = LocalStore(store)
    graph = build_graph(recipe, opened, sources_needed=False)
    return dict(plan_figures(recipe, graph, opened, measure=lambda run: LAPTOP)["base"])


def test_figures_of_tiny(tmp_path: Path) -> None:
    changes = ["tokenizer.vocabulary_size=4096", "base.steps=100", "base.batch_tokens=8192"]
    recipe = load_recipe("tiny", [f"stages.{change}" for change in changes])
    figures = figures_of(recipe, tmp_path)
    layer = 128 * 32 * (4 + 2 + 2 + 4) + 3 * 128 * 384 + 2 * 128 + 2 * 32
    assert figures["parameters"] == 4096 * 128 + 4 * layer + 128
    assert figures["tokens"] == 100 * 8192
    dense = 6 * figures["parameters"] * figures["tokens"]
    assert dense < figures["FLOPs"] < 1.5 * dense
    assert figures["KV cache bytes per token"] == 4 * 2 * 2 * 32 * 4
    assert figures["model folder GB"] == 4 * figures["parameters"] / 1e9


def test_time_cost_and_energy_follow_from_the_rate(tmp_path: Path) -> None:
    recipe = load_recipe("small", ["pricing.gpu_hour=2"])
    figures = figures_of(recipe, tmp_path)
    seconds = figures["tokens"] / figures["tokens per second"]
    assert figures["days"] == pytest.approx(seconds / 86400)
    assert figures["cost USD"] == pytest.approx(2 * seconds / 3600)
    assert figures["energy kWh"] == pytest.approx(0.6 * seconds / 3600)
    useful = figures["FLOPs"] / seconds / 989.4e12
    assert figures["MFU"] == pytest.approx(useful, abs=1e-4)
    assert 0.2 < figures["MFU"] < 0.6


@pytest.mark.parametrize("device", ["h100", "h200"])
@pytest.mark.parametrize(
    ("name", "least", "most", "days", "mfu"),
    [
        ("small", 1.0e8, 1.5e8, 2, 0.2),
        ("7b", 6.5e9, 8e9, 10, 0.3),
        ("70b", 6.5e10, 7.5e10, 50, 0.3),
        ("moe", 2.5e10, 4e10, 60, 0.1),
    ],
)
def test_the_large_recipes_fit_their_clusters(
    tmp_path: Path,
    device: str,
    name: str,
    least: float,
    most: float,
    days: float,
    mfu: float,
) -> None:
    figures = figures_of(load_recipe(name, [f"hardware.device={device}"]), tmp_path)
    assert least < figures["parameters"] < most
    assert figures["fits"].startswith("yes: "), figures["fits"]
    assert 0 < figures["days"] < days
    assert figures["MFU"] > mfu


@pytest.mark.parametrize("name", ["7b", "70b", "moe"])
def test_the_large_recipes_end_with_a_base_model(name: str) -> None:
    """Nothing after it holds the model whole in one process, and nothing before it is unused."""
    recipe = load_recipe(name)
    assert list(recipe.steps)[-1] == "base" and recipe.file.serve is None
    read = {parent for step in recipe.steps.values() for p in step.parents.values() for parent in p}
    assert set(recipe.steps) - read == {"base"}


@pytest.mark.parametrize("name", ["7b", "70b", "moe"])
def test_no_other_rows_or_tensor_degree_is_faster(name: str, tmp_path: Path) -> None:
    """Among those that fit the recipe's own devices, with as many workers and as ZeRO."""
    recipe = load_recipe(name)
    parallel = recipe.steps["base"].config.parallel  # type: ignore[attr-defined]
    tensors = (1,) if name == "moe" else (1, 2, 4)
    best = figures_of(recipe, tmp_path)["days"]
    for tensor, rows in itertools.product(tensors, (1, 2, 4, 8, 16)):
        place = "stages.base.parallel."
        other = load_recipe(name, [f"{place}tensor={tensor}", f"{place}rows={rows}"])
        figures = figures_of(other, tmp_path)
        if figures["fits"].startswith("yes: "):
            assert figures["days"] >= 0.999 * best, (tensor, rows, parallel)


def test_a_short_step_is_in_milliseconds(tmp_path: Path) -> None:
    recipe = load_recipe("nano")
    figures = figures_of(recipe, tmp_path)
    seconds = 1024 / figures["tokens per second"]
    assert seconds < 0.1
    assert figures["step"].startswith(f"{1000 * seconds:.3g} ms: ")


def test_the_store_holds_every_checkpoint_that_is_kept(tmp_path: Path) -> None:
    """The newest two, one that a longer run goes on from, one being written, and every 1000th."""
    figures = figures_of(load_recipe("small"), tmp_path)
    one = figures["checkpoint GB"]
    assert one == pytest.approx(12 * figures["parameters"] / 1e9)
    assert figures["checkpoints GB, 4 at most at a time"] == pytest.approx(4 * one)
    more = figures_of(load_recipe("small", ["stages.base.checkpoints={every: 1000}"]), tmp_path)
    assert more["checkpoints GB, 8 at most at a time"] == pytest.approx(8 * one)


def test_what_does_not_fit_is_said_with_what_to_change(tmp_path: Path) -> None:
    recipe = load_recipe("7b", ["stages.base.parallel.activation_checkpointing=false",
                                "stages.base.parallel.rows=8", "hardware.device=h100"])  # fmt: skip
    said = figures_of(recipe, tmp_path)["fits"]
    assert said.startswith("NO: ") and "of 74.5 GiB on H100" in said
    assert "parallel.activation_checkpointing: true" in said


def test_an_elastic_run_must_fit_on_its_fewest_workers(tmp_path: Path) -> None:
    """Seven billion parameters at ZeRO 3 fit on 64 GPUs, and two hold half of 16 bytes each."""
    changes = ["stages.base.parallel.zero=3", "hardware.device=h100"]
    recipe = load_recipe("7b", [*changes, "stages.base.parallel.workers=[2,64]"])
    figures = figures_of(recipe, tmp_path)
    said = figures["fits"]
    assert said.startswith("NO: with 2 workers ") and "most of it optimizer: try more work" in said
    assert "with 64 workers " in said and said.endswith(" of 74.5 GiB on H100 fits")
    states = ("weights", "gradients", "optimizer")
    for workers in (2, 64):
        found = sum(figures[f"memory GiB with {workers} workers: {state}"] for state in states)
        expected = (4 + 4 + 4 + 8) * figures["parameters"] / workers / 2**30
        assert found == pytest.approx(expected, rel=1e-3)
    fixed = figures_of(load_recipe("7b", changes), tmp_path)
    assert fixed["fits"].startswith("yes: ")
    for figure in ("tokens per second", "cost USD", "time"):
        assert fixed[figure] == figures[f"{figure} with 64 workers"]
    assert figures["days with 2 workers"] > 20 * figures["days with 64 workers"]
    assert "2 = data 2" in figures["workers"] and "64 = data 64" in figures["workers"]
    wide = load_recipe("7b", [*changes, "stages.base.parallel.workers=[32,64]"])
    assert figures_of(wide, tmp_path)["fits"].startswith("yes: with 32 workers ")


def test_a_processors_memory_is_shared_by_the_workers_there_are(tmp_path: Path) -> None:
    """LAPTOP is a half of one: a single worker has both."""
    recipe = load_recipe("tiny", ["stages.base.parallel.workers=[1,2]"])
    said = figures_of(recipe, tmp_path)["fits"]
    assert " of 14.9 GiB on laptop" in said and " of 7.5 GiB on laptop" in said


def test_missing_sources_are_noted_by_a_plan_and_refused_by_a_run(tmp_path: Path) -> None:
    recipe = load_recipe("7b")
    graph = build_graph(recipe, LocalStore(tmp_path), sources_needed=False)
    assert any("crawl does not exist" in note for note in graph.notes)
    with pytest.raises(UserError, match=r"stages\.corpus: .*crawl does not exist"):
        build_graph(recipe, LocalStore(tmp_path))


def test_gpus_without_a_kind_cannot_be_planned(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["stages.base.parallel.gpu=true"])
    with pytest.raises(UserError, match=r"the recipe names no hardware: add a key such as"):
        figures_of(recipe, tmp_path)


def test_a_shape_that_does_not_fit_is_refused_before_a_run(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["stages.base.model.num_key_value_heads=3"])
    with pytest.raises(UserError, match=r"^stages\.base\.model: num_key_value_heads is 3; it must"):
        check_shapes(recipe, LocalStore(tmp_path))


def test_a_run_that_goes_on_from_an_imported_model_is_planned_for_its_shape(
    tmp_path: Path,
) -> None:
    import_artifact(LocalStore(tmp_path / "store"), write_model(tmp_path / "model"), "llama")
    figures = figures_of(recipe_from("llama", tmp_path), tmp_path / "store")
    assert figures["parameters"] == pretrained.read_config(tmp_path / "model").parameters()


def test_devices_that_recipes_name_have_their_datasheets_speed() -> None:
    assert DEVICES["h200"].flops("bfloat16") == 989.4e12
    assert all(device.flops("float32") > 1e13 for device in DEVICES.values())


def test_a_faster_network_shortens_the_step_and_nothing_else(
    run_shape: Any, tmp_path: Path
) -> None:
    from stages.planning.roofline import step_time

    run: RunShape = run_shape(parallel={"workers": 16, "zero": 3, "rows": 1, "gpu": True})
    slow = planned_machine(Hardware(device="h100", network_gbit=10), run)
    fast = planned_machine(Hardware(device="h100", network_gbit=800), run)
    before, after = step_time(run, slow), step_time(run, fast)
    assert before.communication > after.communication
    assert dataclasses.replace(before, communication=0.0) == dataclasses.replace(
        after, communication=0.0
    )
