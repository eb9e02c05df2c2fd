"""`raylm plan`: figures of every stage before anything runs, from the stages' own formulas."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from stages.graph import Graph
from stages.recipe import Recipe, Step


def plan_figures(recipe: Recipe, graph: Graph) -> dict[str, Mapping[str, Any]]:
    """Stage name -> figures, of the stages that can tell (`Stage.plan`), in running order."""
    figures: dict[str, Mapping[str, Any]] = {}
    for name in graph.nodes:
        step = recipe.steps[name]
        if step.stage.plan:
            module, function = step.stage.plan.split(":")
            plan = getattr(importlib.import_module(module), function)
            figures[name] = plan(step.config, _parents_of(step, recipe))
    return figures


def _parents_of(step: Step, recipe: Recipe) -> dict[str, Any]:
    """Parent field -> the config of the step there (of the first, where there are several)."""
    configs = {}
    for field, names in step.parents.items():
        known = [recipe.steps[name].config for name in names if name in recipe.steps]
        if known:
            configs[field] = known[0]
    return configs
