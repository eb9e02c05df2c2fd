"""What stages on TRL share on the driver's side: config fields, the job, the result.

The loop that a stage hands in runs in the workers and leaves the trained model in the scratch
folder's `model`; this side turns it into the artifact's files.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from cluster.errors import UserError
from cluster.trainer import run_workers
from stages.stage import Context, Inputs, Metrics, StageConfig, duration, execution, one
from stages.tune.journal import LOG, TENSORBOARD
from stages.tune.parallel import Parallel
from stages.tune.precision import Precision
from stages.tune.watching import Watching

MODEL = "model"
SHOWN = 4
"""Sizes of a group that a sentence names."""


class LoRA(StageConfig):
    """Low-rank adapters on every linear layer (arXiv:2106.09685), merged into the saved model."""

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)


class FineTuning(StageConfig):
    """Fields of every stage that trains through TRL. One step takes `batch_rows` examples."""

    steps: int = duration(default=200, ge=1)
    batch_rows: int = Field(default=32, ge=1)
    sequence_length: int = Field(default=256, ge=8)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Precision = "auto"
    examples_limit: int | None = Field(default=None, ge=1)
    heldout_limit: int = Field(default=256, ge=1)
    lora: LoRA | None = None
    parallel: Parallel = execution(Parallel())
    checkpoint_every: int = execution(200, ge=1)
    watch: Watching = execution(Watching())

    @model_validator(mode="after")
    def _plain_data_parallel(self) -> FineTuning:
        if self.parallel.zero:
            raise ValueError(
                f"parallel.zero is {self.parallel.zero}; stages that train through TRL keep whole "
                "optimizer states: use zero 0"
            )
        if self.parallel.model_ranks > 1:
            raise ValueError(
                "parallel.tensor, pipeline and sequence are for pretraining; stages that train "
                "through TRL share out rows only: leave them 1"
            )
        if self.parallel.compiled:
            raise ValueError(
                "parallel.compiled is for pretraining; stages that train through TRL run "
                "transformers' layers as they stand: leave it out"
            )
        self._check_shares()
        return self

    def _check_shares(self) -> None:
        """Every size that the group may have must divide a step's rows: each takes as many."""
        least, most = self.parallel.bounds
        uneven = [size for size in range(least, most + 1) if self.batch_rows % size]
        if not uneven:
            return
        if least == most:
            raise ValueError(
                f"batch_rows is {self.batch_rows}, not a multiple of the {most} workers of "
                "parallel: change one of them"
            )
        among = " or ".join(map(str, uneven[:SHOWN])) + (" ..." if len(uneven) > SHOWN else "")
        raise ValueError(
            f"batch_rows is {self.batch_rows}, which cannot be shared out evenly among {among} "
            f"workers, and parallel.workers {[least, most]} may become so many: give one number of "
            f"workers, or a multiple of {math.lcm(*range(least, most + 1))} rows"
        )


def fine_tune(
    loop: Callable[[dict[str, Any]], None],
    config: FineTuning,
    inputs: Inputs,
    context: Context,
    **extra: Any,
) -> Metrics:
    """Run `loop` in the workers on parents `model` and `examples`; files go to `context.out`."""
    context.connect()
    metrics = run_workers(
        loop,
        {
            "config": config.model_dump(mode="json"),
            "model": str(one(inputs, "model").path.resolve()),
            "examples": str(one(inputs, "examples").path.resolve()),
            "scratch": str(context.scratch.resolve()),
            "seed": context.seed,
            "flops_budget": flops_budget(inputs),
            **extra,
        },
        workers=config.parallel.workers,
        scratch=context.scratch,
        name=context.name or "fine-tuning",
        threads=config.parallel.threads,
        gpu=config.parallel.gpu,
        progress=context.progress,
    )
    shutil.copytree(context.scratch / MODEL, context.out, dirs_exist_ok=True)
    shutil.copyfile(context.scratch / LOG, context.out / LOG)
    shutil.copytree(context.scratch / TENSORBOARD, context.out / TENSORBOARD)
    return metrics


def flops_budget(inputs: Inputs) -> float | None:
    """The FLOPs of the artifact under `compute_of`, which then decide how long training runs."""
    other = inputs.get("compute_of")
    if other is None:
        return None
    flops = other.metrics.get("flops")
    if not flops:
        raise UserError(
            f"compute_of names {other.id}, whose manifest records no flops: name a training stage"
        )
    return float(flops)
