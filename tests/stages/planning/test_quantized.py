"""`quantize` is refused before a run as it would be after the training it is fed by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage import LocalStore
from model.config import ModelConfig
from stages.compress import gguf_file
from stages.graph import build_graph
from stages.importing import import_artifact
from stages.planning import check_shapes, plan_figures, quantized
from stages.planning.quantized import check_quantized
from stages.recipe import load_recipe
from tests.stages.small import write_model

MODELS: list[dict[str, Any]] = [
    {},
    {"num_experts": 4, "moe_intermediate_size": 64},
    {"num_experts": 4, "moe_intermediate_size": 64, "scoring_func": "softmax"},
    {"kv_lora_rank": 16, "num_key_value_heads": 4},
    {"use_qk_norm": False},
    {"use_qk_norm": False, "sliding_window": 64},
    {"sliding_window": 64},
    {"rope_scaling": {"rope_type": "ntk", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
]
INT8 = "stages.int8={stage: quantize, model: base, tokens: tokens}"


def refuses(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except (UserError, ValueError):
        return True
    return False


@pytest.mark.parametrize("fields", MODELS)
def test_shapes_are_judged_as_the_writer_judges_them(fields: dict[str, Any]) -> None:
    shape = ModelConfig(**fields)
    said = refuses(gguf_file._check_architecture, shape.to_hugging_face())
    assert refuses(check_quantized, shape, "Q8_0") == said


def test_blocks_are_the_writers() -> None:
    assert quantized.BLOCK == gguf_file.BLOCK
    odd = ModelConfig(intermediate_size=400)
    with pytest.raises(ValueError, match="found intermediate_size 400, expected a multiple of 32"):
        check_quantized(odd, "Q8_0")
    check_quantized(odd, "F16")


def test_a_mixture_of_experts_is_refused_by_plan_and_run(tmp_path: Path) -> None:
    store, said = LocalStore(tmp_path), r"^stages\.int8\.model: base: found .*Glm4MoeForCausalLM"
    recipe = load_recipe("moe", [INT8])
    with pytest.raises(UserError, match=said):
        check_shapes(recipe, store)
    with pytest.raises(UserError, match=said):
        plan_figures(recipe, build_graph(recipe, store, sources_needed=False), store)


def test_what_is_tuned_has_its_bases_shape(tmp_path: Path) -> None:
    model = "{depth: 4, sliding_window: 64}"
    recipe = load_recipe("nano", [f"stages.base.model={model}"])
    with pytest.raises(UserError, match=r"^stages\.int8\.model: chat: found sliding_window 64"):
        check_shapes(recipe, LocalStore(tmp_path))


def test_an_imported_model_and_a_reward_model_are_judged_too(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    import_artifact(store, write_model(tmp_path / "model"), "brought")
    recipe = load_recipe("nano", ["stages.int8.model=brought"])
    with pytest.raises(UserError, match=r"brought: found intermediate_size 48, expected"):
        check_shapes(recipe, store)
    with pytest.raises(UserError, match=r"judge: found a reward model, expected a language model"):
        check_shapes(load_recipe("tiny", ["stages.int8.model=judge"]), store)


def test_memory_of_both_models_is_told(tmp_path: Path) -> None:
    store, recipe = LocalStore(tmp_path), load_recipe("70b", [INT8])
    figures = plan_figures(recipe, build_graph(recipe, store, sources_needed=False), store)
    (size,) = figures["int8"].values()
    assert size == pytest.approx(8 * figures["base"]["parameters"] / 2**30)
    assert size > 500
