"""DeepSpeed for a model and an optimizer of ours: its generated configuration and its start.

DeepSpeed gets a client optimizer (asking it for its own Adam compiles C++ for minutes) and no
compiled operators at all on a CPU: probing them costs 40 s, and a killed build leaves a lock that
hangs every later run.

AdamW is torch's. Muon is DeepSpeed's own (`stages.tune.muon`), the one that ZeRO hands whole
matrices. What it would clip is the update and not the gradient, so a run with Muon does not clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from model.optimizer import Kind, build_optimizer
from stages.tune.allocation import taking_part
from stages.tune.decoder import TrainedDecoder
from stages.tune.mesh import Mesh
from stages.tune.muon import combined, gradient_norm_before_muon, is_muon, muon
from stages.tune.parallel import Parallel
from stages.tune.pipeline import leave_the_step_out, pipeline_of
from stages.tune.ulysses import divide_sequences

CLIP_NORM = 1.0
BUCKET_NUMBERS = 200_000_000
"""Most gradients that are exchanged at once; DeepSpeed holds a buffer of so many, or two."""


def deepspeed_config(
    parallel: Parallel,
    accumulation: int,
    clip_norm: float,
    hidden_size: int,
    muon: bool,
    parameters: int = BUCKET_NUMBERS,
) -> dict[str, Any]:
    """DeepSpeed's configuration; micro-batch and accumulation, from which it finds the batch.

    At ZeRO 0 `StepGuard` clips: DeepSpeed's own norm leaves out pipeline stages and counts a tied
    head twice.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": parallel.rows,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clip_norm if parallel.zero else 0.0,
        "zero_optimization": _zero_section(parallel, hidden_size, muon, parameters),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the GPU at every micro-batch
    }
    if parallel.tensor > 1:
        # on the host: slices of what has no memory have none either
        config["tensor_parallel"] = {"autotp_size": parallel.tensor, "keep_module_on_host": True}
    return config


def _zero_section(
    parallel: Parallel, hidden_size: int, muon: bool, parameters: int
) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": parallel.zero}
    if parallel.zero:  # on CPUs there is no second stream to overlap with
        section |= {
            "overlap_comm": parallel.gpu,
            "contiguous_gradients": True,
            "reduce_bucket_size": min(BUCKET_NUMBERS, parameters),
        }
    if parallel.zero == 3:  # sizes as Hugging Face's "auto": norms stay, matrices come and go
        section |= {
            "stage3_param_persistence_threshold": 10 * hidden_size,
            "stage3_prefetch_bucket_size": round(0.9 * hidden_size**2),
            "reduce_scatter": not muon,  # Muon needs whole gradients
        }
    for part, place in (
        ("offload_optimizer", parallel.offload_optimizer),
        ("offload_param", parallel.offload_weights),
    ):
        if place:
            section[part] = {"device": place, "pin_memory": parallel.gpu}
    return section


def divided(model: TrainedDecoder, mesh: Mesh, device: torch.device) -> tuple[torch.nn.Module, Any]:
    """What `start_engine` trains: the decoder, or its stage; and DeepSpeed's groups, if it must be
    told them.
    """
    _begin_deepspeed()
    if mesh.pipeline > 1:
        return pipeline_of(model, mesh.pipeline, device), None
    if mesh.sequence > 1:
        return model, divide_sequences(model, mesh)
    return model, None


def without_compiled_operators() -> None:
    """Keep DeepSpeed from probing and compiling operators in this process."""
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = {}
        torch.compiler.set_stance("force_eager")  # Muon's few products are not worth a compiler


def client_optimizer(
    model: torch.nn.Module,
    learning_rate: float,
    weight_decay: float,
    kind: Kind,
    bfloat16: bool = False,
) -> torch.optim.Optimizer:
    """The optimizer to hand to `start_engine`."""
    if kind == "adamw":
        return build_optimizer(model, learning_rate, weight_decay, kind)
    without_compiled_operators()
    return muon(model, learning_rate, weight_decay, bfloat16)


def _begin_deepspeed() -> Any:
    """DeepSpeed, quiet, with the running process group as its own."""
    import logging
    import warnings

    without_compiled_operators()
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    deepspeed.init_distributed(dist_backend=dist.get_backend(), dist_init_required=False)
    return deepspeed


def start_engine(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    parallel: Parallel,
    accumulation: int = 1,
    clip_norm: float = CLIP_NORM,
    hidden_size: int = 1,
    groups: Any = None,
) -> Any:
    """A DeepSpeed engine over `model` in the running process group; `groups` are `divided`'s.

    A hollow model takes the memory of what this rank holds of it, for `restore.load` to fill.
    """
    deepspeed = _begin_deepspeed()
    config = deepspeed_config(
        parallel, accumulation, clip_norm, hidden_size, muon=is_muon(optimizer),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )  # fmt: skip
    with taking_part(parallel, config):
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config, mpu=groups, dist_init_required=False
        )
    if parallel.pipeline > 1:
        leave_the_step_out(engine)
    if parallel.compiles:
        torch.compiler.set_stance("default")
    return engine


def shard_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer that holds the state: the client's own, beneath DeepSpeed's wrapping."""
    inner = engine.optimizer
    while not isinstance(inner, torch.optim.Optimizer) or hasattr(inner, "optimizer"):
        inner = inner.optimizer
    return inner


class StepGuard:
    """Takes the optimizer's step, or leaves it out on all ranks, weights and states untouched.

    With ZeRO, DeepSpeed takes the norm within its step and leaves the step out where the norm is
    not finite; so a norm that is refused is handed to it as infinite. At ZeRO 0 the norm is found
    and gradients are clipped here.
    """

    def __init__(self, engine: Any, clip_norm: float = CLIP_NORM) -> None:
        self.engine, self.clip_norm = engine, clip_norm
        self.zero = engine.zero_optimization_stage()
        self._accept: Callable[[float], bool] = math.isfinite
        self._norm = math.inf
        if self.zero:
            self._listen(engine.optimizer)

    def _listen(self, inner: Any) -> None:
        """Stand between DeepSpeed's norm and its decision. ZeRO 3 gives the norm by groups."""
        name = "_get_norm_groups" if self.zero == 3 else "scaled_global_norm"
        measure = getattr(inner, name)

        def as_one(value: Any) -> float:
            return combined([float(x) for x in (value if isinstance(value, list) else [value])])

        own_norm: Callable[[], float] | None = None
        if is_muon(shard_optimizer(self.engine)):
            own_norm = gradient_norm_before_muon(
                inner, lambda: as_one(measure()), lambda norm: self._accept(norm)
            )

        def judged() -> Any:
            value = measure()
            self._norm = own_norm() if own_norm else as_one(value)
            if self._accept(self._norm):
                return value
            infinite = torch.full_like(value[0] if isinstance(value, list) else value, math.inf)
            return [infinite] * len(value) if isinstance(value, list) else infinite

        setattr(inner, name, judged)

    def step(self, accept: Callable[[float], bool] = math.isfinite) -> tuple[float, bool]:
        """(gradient norm before clipping, whether the step was taken).

        `accept` judges the norm, alike on all ranks. A norm that is not finite is never taken.
        """
        self._accept = accept
        self._norm = math.inf
        if self.zero:
            take_step(self.engine)
            return self._norm, not self.engine.optimizer.overflow
        norm = float(gradient_norm(self.engine))
        taken = math.isfinite(norm) and accept(norm)
        if taken:
            if self.clip_norm:
                parameters = list(self.engine.module.parameters())
                clip_grads_with_norm_(parameters, self.clip_norm, torch.tensor(norm))
            take_step(self.engine)
        else:
            self.engine.optimizer.zero_grad(set_to_none=True)
            self.engine.micro_steps += 1  # what step() counts besides
            self.engine.global_steps += 1
        return norm, taken


def take_step(engine: Any) -> None:
    """The optimizer's step with the gradients that the passes left."""
    if engine.pipeline_parallelism:
        engine._exec_optimizer_step()
    else:
        engine.step()


def gradient_norm(engine: Any) -> Tensor:
    """The norm of the whole model's averaged gradients at ZeRO 0, on every rank the same.

    Of a weight that several ranks of a model hold whole, one counts it.
    """
    parameters = [p for p in engine.module.parameters() if p.grad is not None]
    group = engine.mpu and engine.mpu.get_model_parallel_group()
    if group is None or engine.sequence_parallel_size > 1:
        return torch.nn.utils.get_total_norm([p.grad for p in parameters])
    first = engine.mpu.get_model_parallel_rank() == 0
    counted = [p.grad for p in parameters if first or _is_part(p)]
    square = torch.nn.utils.get_total_norm(counted).square()
    dist.all_reduce(square, group=group)
    return square.sqrt()


def _is_part(parameter: torch.nn.Parameter) -> bool:
    """Whether other ranks of the model hold something else: a slice of it, or another layer."""
    return getattr(parameter, "tensor_model_parallel", False) or getattr(
        parameter, "model_parallel", False
    )
