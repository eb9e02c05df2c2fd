"""`raylm plan`: figures of the stages before anything runs, from formulas.

A stage may bring its own (`Stage.plan`). Pretraining's are here, since they need the vocabulary
that a stage further up decides: parameters, FLOPs, memory per device, and from the recipe's pricing
and `throughput` days, cost and energy.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from cluster.errors import UserError
from cluster.progress import duration
from model.config import ModelConfig
from stages.graph import Graph
from stages.pretrain import Config as PretrainConfig
from stages.recipe import Recipe, Step, checked

OPTIMIZER_BYTES = 12
"""Per parameter: float32 master weight and Adam's two moments."""
LAYER_ACTIVATIONS = 34
"""Bytes per token and hidden unit of a layer in 16 bits without attention maps, which the fused
kernel never stores (arXiv:2205.05198, section 4)."""


def plan_figures(recipe: Recipe, graph: Graph) -> dict[str, Mapping[str, Any]]:
    """Stage name -> figures, of the stages that can tell, in running order."""
    figures: dict[str, Mapping[str, Any]] = {}
    for name in graph.nodes:
        step = recipe.steps[name]
        try:
            if isinstance(step.config, PretrainConfig):
                vocabulary = _vocabulary(step, recipe)
                figures[name] = pretrain_figures(step.config, vocabulary, recipe)
            elif step.stage.plan:
                module, function = step.stage.plan.split(":")
                plan = getattr(importlib.import_module(module), function)
                figures[name] = plan(step.config, _parents_of(step, recipe))
        except ValueError as error:
            raise UserError(f"stages.{name}: {error}") from error
    return figures


def check_shapes(recipe: Recipe) -> None:
    """Refuse a model whose sizes do not fit together before any stage has run."""
    for step in recipe.steps.values():
        if isinstance(step.config, PretrainConfig):
            planned_shape(step.config, _vocabulary(step, recipe), f"stages.{step.name}.model.")


def pretrain_figures(config: PretrainConfig, vocabulary: int, recipe: Recipe) -> dict[str, Any]:
    """Size, compute and memory of a base training run."""
    shape = planned_shape(config, vocabulary)
    tokens = config.steps * config.batch_tokens
    flops = tokens * shape.flops_per_token(config.sequence_length)
    parallel, price = config.parallel, recipe.file.pricing
    workers = parallel.bounds[1]
    figures: dict[str, Any] = {
        "parameters": shape.parameters(),
        "tokens": tokens,
        "tokens per parameter": tokens / shape.parameters(),
        "FLOPs": flops,
        "workers": workers,
        "memory per worker GiB": memory_bytes(config, shape) / 2**30,
        "KV cache bytes per token": shape.kv_bytes_per_token(),
    }
    peak = recipe.file.throughput
    if peak is not None:
        seconds = flops / (peak.flops_per_worker * peak.utilization * workers)
        hourly, watts = (
            (price.gpu_hour, price.watts_per_gpu)
            if parallel.gpu
            else (price.cpu_core_hour * parallel.threads, price.watts_per_core * parallel.threads)
        )
        figures |= {
            "tokens per second": tokens / seconds,
            "time": duration(seconds),
            "days": seconds / 86400,
            f"cost {price.currency}": workers * hourly * seconds / 3600,
            "energy kWh": workers * watts * seconds / 3.6e6,
        }
    return figures


def planned_shape(config: PretrainConfig, vocabulary: int, place: str = "model.") -> ModelConfig:
    """The decoder with this vocabulary; sizes that do not fit are a UserError naming `place`."""
    return checked(ModelConfig, config.model.sizes(vocabulary), place)


def memory_bytes(config: PretrainConfig, shape: ModelConfig) -> float:
    """Bytes one worker holds in training: weights, gradients, optimizer, activations, logits.

    ZeRO divides by the number of workers (arXiv:1910.02054): the optimizer's part from stage 1,
    gradients from 2, weights from 3. Tensor parallelism divides all of them.
    """
    parallel = config.parallel
    workers, tensor = parallel.bounds[1], parallel.tensor
    shards = max(1, workers // tensor)
    number = 2 if config.precision == "bfloat16" else 4
    optimizer = OPTIMIZER_BYTES if number == 2 else OPTIMIZER_BYTES - 4
    held = shape.parameters() / tensor
    states = held * (
        number / (shards if parallel.zero >= 3 else 1)
        + number / (shards if parallel.zero >= 2 else 1)
        + optimizer / (shards if parallel.zero >= 1 else 1)
    )
    rows = min(parallel.rows, max(1, config.rows // shards))
    tokens = rows * config.sequence_length
    layers = shape.num_hidden_layers * LAYER_ACTIVATIONS * number / 2
    activations = tokens * shape.hidden_size * layers / tensor
    return float(states + activations + tokens * shape.vocab_size * 4 / tensor)


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
