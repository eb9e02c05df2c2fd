"""`raylm plan`: figures of the stages before anything runs, from formulas, and bad shapes refused.

Of a pretraining, `run_shape` is what the formulas are about and `weights` what it trains; `memory`,
`buckets`, `host`, `work`, `newton_schulz`, `communication` and `roofline` hold them, `machine` says
what they are divided by, `fitting` judges. Of a corpus, `corpus` scales what was measured when one
was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.artifact import ARTIFACTS
from cluster.errors import UserError
from cluster.index import read_index, read_json
from cluster.storage import IMPORTS, Store
from model.config import ModelConfig
from stages.checked import checked
from stages.corpus import Config as CorpusConfig
from stages.graph import Graph
from stages.planning.corpus import corpus_figures
from stages.planning.figures import run_figures
from stages.planning.machine import Machine, measured_machine, planned_machine
from stages.planning.run_shape import RunShape
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step

Measure = Callable[[RunShape], Machine]


def plan_figures(
    recipe: Recipe, graph: Graph, store: Store, measure: Measure = measured_machine
) -> dict[str, Mapping[str, Any]]:
    """Stage name -> figures, of the stages that can tell, in running order.

    A corpus is told from what others in the store took. Where the recipe names no `hardware` and
    trains on processors, `measure` times this one.
    """
    figures: dict[str, Mapping[str, Any]] = {}
    for name in graph.nodes:
        step = recipe.steps[name]
        try:
            if isinstance(step.config, PretrainConfig):
                shape = planned_shape(step, recipe, store)
                if shape is None:
                    continue
                run = RunShape(shape, step.config)
                machine = machine_of(recipe, run, measure)
                figures[name] = run_figures(run, machine, recipe.file.pricing)
            elif isinstance(step.config, CorpusConfig):
                figures[name] = corpus_figures(step, recipe, store)
        except ValueError as error:
            raise UserError(f"stages.{name}: {error}") from error
    return figures


def machine_of(recipe: Recipe, run: RunShape, measure: Measure = measured_machine) -> Machine:
    """What the run is planned for: the recipe's hardware, else this machine's processor."""
    if recipe.file.hardware is not None:
        return planned_machine(recipe.file.hardware, run)
    if run.config.parallel.gpu:
        raise UserError(
            "parallel.gpu is true and the recipe names no hardware: add a key such as "
            "hardware: {device: h100}, so that memory and time can be planned"
        )
    return measure(run)


def check_shapes(recipe: Recipe, store: Store) -> None:
    """Refuse a model whose sizes do not fit together before any stage has run."""
    for step in recipe.steps.values():
        if isinstance(step.config, PretrainConfig):
            planned_shape(step, recipe, store)
            _check_tokenizer(step, recipe)


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
    else:
        place = f"stages.{step.name}: start {config.start}: "
        found = _shape_of_start(config.start, recipe, store, place)
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


def _shape_of_start(start: str, recipe: Recipe, store: Store, place: str) -> ModelConfig | None:
    """The decoder of a model that is to be trained on: of this recipe, or from the store."""
    above = recipe.steps.get(start)
    if above is not None:
        trained = isinstance(above.config, PretrainConfig)
        return planned_shape(above, recipe, store) if trained else None
    written = _stored(start, "config.json", store)
    if not written:
        return None
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
            size = _stored(name, "index.json", store).get("vocabulary_size")
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


def _stored(name: str, file: str, store: Store) -> dict[str, Any]:
    """A JSON file of an imported artifact; empty where the store has none."""
    imported = read_index(store, IMPORTS).get(name, {"id": name})
    return read_json(store, f"{ARTIFACTS}/{imported['id']}/{file}")
