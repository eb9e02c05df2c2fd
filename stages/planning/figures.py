"""A training run's figures as `raylm plan` shows them, in a reader's order and units."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cluster.meter import Pricing
from cluster.progress import duration
from stages.planning.communication import step_communication
from stages.planning.fitting import GIB, memory_figures, where
from stages.planning.host import host_traffic
from stages.planning.machine import Machine
from stages.planning.roofline import StepTime, step_time
from stages.planning.run_shape import RunShape
from stages.planning.weights import checkpoint_bytes


def run_figures(run: RunShape, machine: Machine, price: Pricing) -> dict[str, Any]:
    """Size, memory, communication, speed, cost and storage of a pretraining run; of an elastic one
    memory, speed and cost with the fewest workers and the most.
    """
    return {
        **size_figures(run),
        **memory_figures(run, machine),
        **moved_figures(run),
        **{
            f"{name}{where(sized, run)}": value
            for sized in run.sizes
            for name, value in speed_figures(
                sized, machine, step_time(sized, machine), price
            ).items()
        },
        **storage_figures(run),
    }


def size_figures(run: RunShape) -> dict[str, Any]:
    """The model and how long it trains."""
    config, model = run.config, run.model
    tokens = config.steps * config.batch_tokens
    return {
        "parameters": model.parameters(),
        "tokens": tokens,
        "tokens per parameter": tokens / model.parameters(),
        "FLOPs": tokens * model.flops_per_token(config.sequence_length),
        "workers": "; or ".join(spread(sized) for sized in run.sizes),
    }


def spread(run: RunShape) -> str:
    """How the run is divided, in a line."""
    parallel = run.config.parallel
    parts = [f"{run.workers} = data {parallel.data}"]
    for name in ("tensor", "pipeline", "sequence"):
        if getattr(parallel, name) > 1:
            parts.append(f"{name} {getattr(parallel, name)}")
    batches = f"{run.accumulation} micro-batch{'es' if run.accumulation > 1 else ''}"
    return f"{' x '.join(parts)}, ZeRO {parallel.zero}, {batches} of {run.rows} rows a step"


def moved_figures(run: RunShape) -> dict[str, Any]:
    """What one worker sends the others in a step, and moves between its device and its host."""
    sent: dict[str, float] = asdict(step_communication(run))
    figures = {f"sent per worker and step GiB: {name}": size for name, size in sent.items()}
    if run.config.parallel.gpu:
        moved, name = host_traffic(run), "to and from the host per worker and step GiB"
        figures[f"{name}: gradients"] = moved.gradients
        figures[f"{name}: weights"] = moved.fetched + moved.updated
    return {name: round(size / GIB, 4) for name, size in figures.items() if size}


def speed_figures(
    run: RunShape, machine: Machine, time: StepTime, price: Pricing
) -> dict[str, Any]:
    """Time by part, tokens/s, days, cost and energy."""
    config, parallel = run.config, run.config.parallel
    rate = config.batch_tokens / time.total
    seconds = config.steps * time.total
    useful = run.model.flops_per_token(config.sequence_length) * rate
    hourly, watts = (
        (price.gpu_hour, price.watts_per_gpu)
        if parallel.gpu
        else (price.cpu_core_hour * parallel.threads, price.watts_per_core * parallel.threads)
    )
    shares = {
        name.replace("_", "-"): seconds / time.total for name, seconds in asdict(time).items()
    }
    return {
        "step": f"{short_duration(time.total)}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005),
        "tokens per second": rate,
        "MFU": round(useful / (machine.peak * run.workers), 4),
        "time": duration(seconds),
        "days": seconds / 86400,
        f"cost {price.currency}": run.workers * hourly * seconds / 3600,
        "energy kWh": run.workers * watts * seconds / 3.6e6,
    }


def short_duration(seconds: float) -> str:
    """As `duration`, and in milliseconds below a second."""
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def storage_figures(run: RunShape) -> dict[str, Any]:
    """Bytes that land in the store, and the cache that the model will need where it is served."""
    number, config = run.model.parameters(), run.config
    most = config.checkpoints.most(config.steps, config.checkpoint_every)
    return {
        "model folder GB": number * 4 / 1e9,
        "checkpoint GB": checkpoint_bytes(run) / 1e9,
        f"checkpoints GB, {most} at most at a time": most * checkpoint_bytes(run) / 1e9,
        "host memory GiB per worker while one is written": checkpoint_bytes(run)
        / run.workers
        / GIB,
        "KV cache bytes per token": run.model.kv_bytes_per_token(),
    }
