"""`raylm plan`: figures of the stages before anything runs, from formulas, and bad shapes refused.

Of a pretraining, `run_shape` is what the formulas are about and `weights` what it trains; `memory`,
`buckets`, `host`, `work`, `newton_schulz`, `communication` and `roofline` hold them, `machine` says
what they are divided by, `fitting` judges. Of a corpus, `corpus` scales what was measured when one
was made. `shapes` knows the models before they are there, `refusals` what no run could do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.errors import UserError
from cluster.storage import Store
from stages.compress.quantize import Config as QuantizeConfig
from stages.corpus import Config as CorpusConfig
from stages.graph import Graph
from stages.planning.corpus import corpus_figures
from stages.planning.figures import run_figures
from stages.planning.machine import Machine, measured_machine, planned_machine
from stages.planning.quantized import quantized_figures
from stages.planning.refusals import check_shapes
from stages.planning.run_shape import RunShape
from stages.planning.shapes import model_shape, planned_shape
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe

Measure = Callable[[RunShape], Machine]


def plan_figures(
    recipe: Recipe, graph: Graph, store: Store, measure: Measure = measured_machine
) -> dict[str, Mapping[str, Any]]:
    """Stage name -> figures, of the stages that can tell, in running order; what `check_shapes`
    refuses is refused.

    A corpus is told from what others in the store took. Where the recipe names no `hardware` and
    trains on processors, `measure` times this one.
    """
    check_shapes(recipe, store)
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
            elif isinstance(step.config, QuantizeConfig):
                found = model_shape(step.config.model, recipe, store, f"stages.{name}.model: ")
                figures[name] = quantized_figures(found) if found else {}
        except ValueError as error:
            raise UserError(f"stages.{name}: {error}") from error
    return figures


def machine_of(recipe: Recipe, run: RunShape, measure: Measure = measured_machine) -> Machine:
    """What the run is planned for: the recipe's hardware, else this machine's processor; a
    ValueError where the two do not go together.
    """
    hardware, gpu = recipe.file.hardware, run.config.parallel.gpu
    if hardware is not None and not gpu:
        raise ValueError(
            f"parallel.gpu is false and hardware is {hardware.device}: expected a run on GPUs "
            "where GPUs are named; set parallel.gpu to true, or hardware to null and the plan is "
            "for this machine's processor"
        )
    if hardware is not None:
        return planned_machine(hardware, run)
    if gpu:
        raise ValueError(
            "parallel.gpu is true and the recipe names no hardware: add a key such as "
            "hardware: {device: h100}, so that memory and time can be planned"
        )
    return measure(run)
