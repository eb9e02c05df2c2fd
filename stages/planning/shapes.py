"""The shapes of a recipe's models, known before any stage has run, or refused."""

from __future__ import annotations

from typing import Any

from cluster.artifact import ARTIFACTS
from cluster.errors import UserError
from cluster.index import read_index, read_json
from cluster.storage import IMPORTS, Store
from model.config import ModelConfig
from stages.checked import checked
from stages.compress.distill import Config as DistillConfig
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step


def planned_shape(step: Step, recipe: Recipe, store: Store) -> ModelConfig | None:
    """The decoder of a pretraining step; None where only a stage that has not run will know.

    Sizes that do not fit each other, the run or the vocabulary are a UserError that says where.
    """
    config, vocabulary = step.config, _vocabulary(step, recipe, store)
    assert isinstance(config, PretrainConfig)
    if config.start is None:
        place = f"stages.{step.name}.model."
        sizes = config.model.sizes(vocabulary or ModelConfig().vocab_size)
        shape = checked(ModelConfig, sizes, place)
        _check_experts(shape, place)
    else:
        place = f"stages.{step.name}: start {config.start}: "
        found = model_shape(config.start, recipe, store, place)
        if found is None:
            return None
        shape = found
        try:
            config.check_shape(shape.model_dump())
        except ValueError as error:
            raise UserError(f"{place}{error}") from error
    if vocabulary is not None and shape.vocab_size < vocabulary:
        raise UserError(
            f"{place}vocab_size is {shape.vocab_size}, too small for a tokenizer of {vocabulary} "
            "tokens: expected at least as many"
        )
    return shape


def _check_experts(shape: ModelConfig, place: str) -> None:
    if shape.num_experts and not any(map(shape.has_experts, range(shape.num_hidden_layers))):
        raise UserError(
            f"{place}first_k_dense_replace is {shape.first_k_dense_replace} and the model has "
            f"{shape.num_hidden_layers} layers, so none has the {shape.num_experts} experts: "
            "expected fewer dense layers, or num_experts 0"
        )


def model_shape(name: str, recipe: Recipe, store: Store, place: str) -> ModelConfig | None:
    """The decoder that a recipe's step makes, or that lies in the store under this name or id.

    What is tuned keeps its shape, but for the layers that `distill` leaves out.
    """
    step = recipe.steps.get(name)
    if step is None:
        return _stored_shape(name, store, place)
    if isinstance(step.config, PretrainConfig):
        return planned_shape(step, recipe, store)
    above = step.parents.get("model", [])
    shape = model_shape(above[0], recipe, store, place) if above else None
    if shape is not None and isinstance(step.config, DistillConfig):
        return shape.model_copy(update={"num_hidden_layers": step.config.layers})
    return shape


def _stored_shape(name: str, store: Store, place: str) -> ModelConfig | None:
    """Of an artifact; None where there is none, which the graph says better."""
    artifact_id = stored_id(name, store)
    if not store.has(artifact_id):
        return None
    written = read_json(store, f"{ARTIFACTS}/{artifact_id}/config.json")
    if not written:
        raise UserError(
            f"{place}artifact {artifact_id} has no config.json in {store.url}, so nothing says "
            "its shape: expected a Hugging Face model's folder; import it again"
        )
    try:
        return ModelConfig.from_hugging_face(written)
    except ValueError as error:
        raise UserError(f"{place}{error}") from error


def _vocabulary(step: Step, recipe: Recipe, store: Store) -> int | None:
    """How many tokens the nearest tokenizer above has, or is to have; None where nobody says."""
    waiting, seen = [step.name], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        above = recipe.steps.get(name)
        if above is None:
            path = f"{ARTIFACTS}/{stored_id(name, store)}/index.json"
            size = read_json(store, path).get("vocabulary_size")
        else:
            size = getattr(above.config, "vocabulary_size", None)
            waiting.extend(
                parent
                for field, names in above.parents.items()
                if field != "start"
                for parent in names
            )
        if isinstance(size, int):
            return size
    return None


def stored_id(name: str, store: Store) -> str:
    """The artifact id that an imported name stands for, or the id itself."""
    entry: dict[str, Any] = read_index(store, IMPORTS).get(name, {"id": name})
    return str(entry["id"])
