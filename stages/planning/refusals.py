"""What a plan and a run refuse alike, before any stage has run.

The stages check again what they are given: here stands what the recipe and the store tell already.
"""

from __future__ import annotations

from cluster.artifact import Artifact, whole
from cluster.errors import UserError
from cluster.storage import LocalStore, Store
from model.config import ModelConfig
from stages.compress.quantize import Config as QuantizeConfig
from stages.planning.quantized import check_quantized
from stages.planning.shapes import model_shape, planned_shape, stored_id
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step

TOKENIZER = "tokenizer.json"


def check_shapes(recipe: Recipe, store: Store) -> None:
    """Refuse models whose sizes do not fit together, or the stage that gets them, and tokens that
    a model would not know.
    """
    for step in recipe.steps.values():
        if isinstance(step.config, PretrainConfig):
            shape = planned_shape(step, recipe, store)
            _check_tokenizer(step, recipe)
            if shape is not None and step.config.start is not None:
                _check_start(step, step.config.start, shape, recipe, store)
        elif isinstance(step.config, QuantizeConfig):
            _check_quantized(step, step.config, recipe, store)


def _check_tokenizer(step: Step, recipe: Recipe) -> None:
    """Tokens encoded with another tokenizer than the model is to have."""
    for chosen in step.parents["tokenizer"]:
        for tokens in step.parents["tokens"]:
            used = recipe.steps[tokens].parents["tokenizer"] if tokens in recipe.steps else [chosen]
            if used != [chosen]:
                sizes = {
                    name: getattr(recipe.steps[name].config, "vocabulary_size", "unknown")
                    for name in (*used, chosen)
                    if name in recipe.steps
                }
                raise UserError(
                    f"stages.{step.name}: {tokens!r} is encoded with {', '.join(used)}, and "
                    f"tokenizer is {chosen!r} (vocabulary sizes {sizes}): the same tokenizer must "
                    "be named in both"
                )


def _check_start(step: Step, start: str, shape: ModelConfig, recipe: Recipe, store: Store) -> None:
    """A start from the store: its files, its tokenizer, and whether its weights are the shape's.

    What lies on an object store is not fetched for a plan; of it only the list of files is read.
    """
    if start in recipe.steps:
        return
    from stages.pretrain.checks import check_equal_tokenizers, check_weights, without_tokenizer

    place, found = f"stages.{step.name}: start {start}: ", stored_id(start, store)
    files = {entry.path for entry in store.manifest(found).files}
    if not step.parents["tokenizer"] and TOKENIZER not in files:
        raise UserError(f"stages.{step.name}: {without_tokenizer(found)}")
    if not isinstance(store, LocalStore):
        return
    artifact = whole(store.get(found))
    try:
        check_weights(artifact.path, shape)
    except ValueError as error:
        raise UserError(f"{place}{error}") from error
    said = {f"start {found}": artifact.path}
    for name in (*step.parents["tokenizer"], *_tokenizers_of(step.parents["tokens"], recipe)):
        other = _stored(name, recipe, store)
        if other is not None:
            tokens = other.kind == "tokens"
            said[f"{other.kind} {other.id}"] = other.path / "tokenizer" if tokens else other.path
    try:
        check_equal_tokenizers(said)
    except UserError as error:
        raise UserError(f"stages.{step.name}: {error}") from error


def _tokenizers_of(tokens: list[str], recipe: Recipe) -> list[str]:
    """What says which numbers these tokens have: themselves, or the tokenizer they are to get."""
    return [
        name
        for one in tokens
        for name in (recipe.steps[one].parents["tokenizer"] if one in recipe.steps else [one])
    ]


def _stored(name: str, recipe: Recipe, store: LocalStore) -> Artifact | None:
    """An artifact that was brought in; None for what a step makes, and for what is not there."""
    found = stored_id(name, store)
    return store.get(found) if name not in recipe.steps and store.has(found) else None


def _check_quantized(step: Step, config: QuantizeConfig, recipe: Recipe, store: Store) -> None:
    """A model that the one layout of `quantize` cannot hold."""
    place = f"stages.{step.name}.model: {config.model}: "
    above = recipe.steps.get(config.model)
    if above is not None and above.stage.name == "reward":
        raise UserError(
            f"{place}found a reward model, expected a language model: quantize writes no other"
        )
    shape = model_shape(config.model, recipe, store, place)
    if shape is None:
        return
    try:
        check_quantized(shape, config.format)
    except ValueError as error:
        raise UserError(f"{place}{error}") from error
