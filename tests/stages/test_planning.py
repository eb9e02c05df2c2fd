"""Plans: figures against independent arithmetic, and bad shapes refused before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.storage import LocalStore
from stages.graph import build_graph
from stages.planning import check_shapes, memory_bytes, plan_figures, planned_shape
from stages.pretrain import Config
from stages.recipe import load_recipe


def config(**fields: object) -> Config:
    return Config.model_validate({"tokens": "tokens", "steps": 10, "warmup_steps": 1, **fields})


def test_figures_of_tiny(tmp_path: Path) -> None:
    changes = ["tokenizer.vocabulary_size=4096", "base.steps=100", "base.batch_tokens=8192"]
    recipe = load_recipe("tiny", [f"stages.{change}" for change in changes])
    figures = plan_figures(recipe, build_graph(recipe, LocalStore(tmp_path), sources_needed=False))[
        "base"
    ]
    layer = 128 * 32 * (4 + 2 + 2 + 4) + 3 * 128 * 384 + 2 * 128 + 2 * 32
    assert figures["parameters"] == 4096 * 128 + 4 * layer + 128
    assert figures["tokens"] == 100 * 8192
    dense = 6 * figures["parameters"] * figures["tokens"]
    assert dense < figures["FLOPs"] < 1.5 * dense
    assert figures["KV cache bytes per token"] == 4 * 2 * 2 * 32 * 4


def test_time_and_cost_follow_from_throughput(tmp_path: Path) -> None:
    recipe = load_recipe("small", ["throughput.utilization=0.5", "pricing.gpu_hour=2"])
    figures = plan_figures(recipe, build_graph(recipe, LocalStore(tmp_path), sources_needed=False))[
        "base"
    ]
    seconds = figures["FLOPs"] / (9.89e14 * 0.5)
    assert figures["days"] == pytest.approx(seconds / 86400)
    assert figures["cost USD"] == pytest.approx(2 * seconds / 3600)
    assert figures["energy kWh"] == pytest.approx(0.6 * seconds / 3600)


def test_large_recipes_are_planned_without_their_sources(tmp_path: Path) -> None:
    recipe = load_recipe("7b")
    graph = build_graph(recipe, LocalStore(tmp_path), sources_needed=False)
    assert any("crawl does not exist" in note for note in graph.notes)
    figures = plan_figures(recipe, graph)["base"]
    assert 6.5e9 < figures["parameters"] < 8e9
    assert figures["memory per worker GiB"] < 80
    assert 1 < figures["days"] < 60
    with pytest.raises(UserError, match=r"stages\.corpus: .*crawl does not exist"):
        build_graph(recipe, LocalStore(tmp_path))


def test_zero_divides_what_it_says() -> None:
    """States in float32: 4 weights + 4 gradients + 8 moments bytes per parameter."""
    shape = planned_shape(config(), 4096)

    def states(zero: int, workers: int) -> float:
        parallel = {"workers": workers, "zero": zero, "rows": 1}
        plan = config(parallel=parallel, batch_tokens=256 * 64)
        bare = config(parallel={"workers": workers, "rows": 1}, batch_tokens=256 * 64)
        return memory_bytes(plan, shape) - memory_bytes(bare, shape)

    number = shape.parameters()
    assert states(1, 4) == pytest.approx(-8 * number * 3 / 4)
    assert states(2, 4) == pytest.approx(-12 * number * 3 / 4)
    assert states(1, 1) == 0


def test_a_shape_that_does_not_fit_is_refused_before_a_run() -> None:
    recipe = load_recipe("tiny", ["stages.base.model.num_key_value_heads=3"])
    with pytest.raises(UserError, match=r"^stages\.base\.model: num_key_value_heads is 3; it must"):
        check_shapes(recipe)
