"""`raylm plan`: figures of the stages before anything runs, from formulas, and bad shapes refused.

Of a pretraining, `run_shape` is what the formulas are about, `memory`, `work`, `communication` and
`roofline` hold them, `machine` says what they are divided by. Of a corpus, `corpus` scales what was
measured when one was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.errors import UserError
from cluster.storage import Store
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
                if _imported_start(step, recipe):
                    continue  # only the store knows its shape; the run checks it
                run = RunShape(planned_shape(step, recipe), step.config)
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


def check_shapes(recipe: Recipe) -> None:
    """Refuse a model whose sizes do not fit together before any stage has run."""
    for step in recipe.steps.values():
        if isinstance(step.config, PretrainConfig):
            if not _imported_start(step, recipe):
                planned_shape(step, recipe)
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


def planned_shape(step: Step, recipe: Recipe) -> ModelConfig:
    """The decoder of a pretraining step; sizes that do not fit are a UserError that says where."""
    assert isinstance(step.config, PretrainConfig)
    if step.config.start is not None:
        return planned_shape(recipe.steps[step.config.start], recipe)
    sizes = step.config.model.sizes(_vocabulary(step, recipe))
    return checked(ModelConfig, sizes, f"stages.{step.name}.model.")


def _imported_start(step: Step, recipe: Recipe) -> bool:
    """Whether a run goes on from a model that no pretraining of this recipe makes."""
    start = getattr(step.config, "start", None)
    if start is None:
        return False
    above = recipe.steps.get(start)
    return above is None or not isinstance(above.config, PretrainConfig)


def _vocabulary(step: Step, recipe: Recipe) -> int:
    """The vocabulary decided by the nearest stage above; an imported one's is not in the recipe."""
    waiting, seen = [step.name], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in recipe.steps:
            continue
        seen.add(name)
        above = recipe.steps[name]
        size = getattr(above.config, "vocabulary_size", None)
        if isinstance(size, int):
            return size
        waiting.extend(parent for names in above.parents.values() for parent in names)
    return ModelConfig().vocab_size
