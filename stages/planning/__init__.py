"""`raylm plan`: figures of the stages before anything runs, from formulas, and bad shapes refused.

A stage may bring its own figures (`Stage.plan`). Pretraining's are here, since they need the
vocabulary that a stage further up decides: `run_shape` is what the formulas are about, `memory`,
`work`, `communication` and `roofline` hold them, `machine` says what they are divided by.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from cluster.errors import UserError
from model.config import ModelConfig
from stages.graph import Graph
from stages.planning.figures import run_figures
from stages.planning.machine import Machine, measured_machine, planned_machine
from stages.planning.run_shape import RunShape
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step, checked

Measure = Callable[[RunShape], Machine]


def plan_figures(
    recipe: Recipe, graph: Graph, measure: Measure = measured_machine
) -> dict[str, Mapping[str, Any]]:
    """Stage name -> figures, of the stages that can tell, in running order.

    Where the recipe names no `hardware` and trains on processors, `measure` times this one.
    """
    figures: dict[str, Mapping[str, Any]] = {}
    for name in graph.nodes:
        step = recipe.steps[name]
        try:
            if isinstance(step.config, PretrainConfig):
                run = RunShape(planned_shape(step, recipe), step.config)
                machine = machine_of(recipe, run, measure)
                figures[name] = run_figures(run, machine, recipe.file.pricing)
            elif step.stage.plan:
                module, function = step.stage.plan.split(":")
                plan = getattr(importlib.import_module(module), function)
                figures[name] = plan(step.config, _parents_of(step, recipe))
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
            planned_shape(step, recipe)


def planned_shape(step: Step, recipe: Recipe) -> ModelConfig:
    """The decoder of a pretraining step; sizes that do not fit are a UserError that says where."""
    assert isinstance(step.config, PretrainConfig)
    sizes = step.config.model.sizes(_vocabulary(step, recipe))
    return checked(ModelConfig, sizes, f"stages.{step.name}.model.")


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


def _parents_of(step: Step, recipe: Recipe) -> dict[str, Any]:
    """Parent field -> the config of the step there (of the first, where there are several)."""
    configs = {}
    for field, names in step.parents.items():
        known = [recipe.steps[name].config for name in names if name in recipe.steps]
        if known:
            configs[field] = known[0]
    return configs
