"""A training run's figures as `raylm plan` shows them, in a reader's order and units."""

from __future__ import annotations

from typing import Any

from cluster.meter import Pricing
from cluster.progress import duration
from stages.planning.communication import step_communication
from stages.planning.machine import Machine
from stages.planning.memory import Memory, optimizer_bytes, training_memory
from stages.planning.roofline import StepTime, step_time
from stages.planning.run_shape import RunShape

GIB = 2**30


def run_figures(run: RunShape, machine: Machine, price: Pricing) -> dict[str, Any]:
    """Size, memory, communication, speed, cost and storage of a pretraining run."""
    memory, time = training_memory(run), step_time(run, machine)
    return {
        **size_figures(run),
        **memory_figures(memory, machine),
        **speed_figures(run, machine, time, price),
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
        "workers": spread(run),
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


def memory_figures(memory: Memory, machine: Machine) -> dict[str, Any]:
    """Memory of one worker by part, and whether the device holds it."""
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits": memory.logits,
        "buffers": memory.buffers,
    }
    figures: dict[str, Any] = {
        f"memory GiB: {name}": round(size / GIB, 4) for name, size in parts.items()
    }
    figures["memory GiB: total per worker"] = round(memory.total / GIB, 4)
    if memory.on_host:
        figures["memory GiB: on the host per worker"] = round(memory.on_host / GIB, 4)
    figures["fits"] = verdict(memory, machine, parts)
    return figures


def verdict(memory: Memory, machine: Machine, parts: dict[str, float]) -> str:
    """Whether the run fits its device, and what to change where it does not."""
    found = f"{memory.total / GIB:.1f} of {machine.memory / GIB:.1f} GiB on {machine.name}"
    if memory.fits(machine.memory):
        return f"yes: {found}"
    largest = max(parts, key=lambda name: parts[name])
    advice = {
        "weights": "parallel.zero 3, or a larger parallel.tensor",
        "gradients": "parallel.zero 2 or 3, or more workers",
        "optimizer": "parallel.zero 1 or more, more workers, or parallel.offload_optimizer: cpu",
        "activations": "parallel.activation_checkpointing: true, or fewer parallel.rows",
        "logits": "fewer parallel.rows, or a smaller vocabulary",
        "buffers": "more memory, or a smaller model",
    }[largest]
    return f"NO: {found}, most of it {largest}: try {advice}"


def speed_figures(
    run: RunShape, machine: Machine, time: StepTime, price: Pricing
) -> dict[str, Any]:
    """Communication, time by part, tokens/s, days, cost and energy."""
    config, parallel = run.config, run.config.parallel
    sent = step_communication(run)
    rate = config.batch_tokens / time.total
    seconds = config.steps * time.total
    useful = run.model.flops_per_token(config.sequence_length) * rate
    hourly, watts = (
        (price.gpu_hour, price.watts_per_gpu)
        if parallel.gpu
        else (price.cpu_core_hour * parallel.threads, price.watts_per_core * parallel.threads)
    )
    figures: dict[str, Any] = {}
    for name in ("gradients", "weights", "tensor", "sequence", "pipeline"):
        if size := getattr(sent, name):
            figures[f"sent per worker and step GiB: {name}"] = round(size / GIB, 4)
    shares = {
        name: getattr(time, name) / time.total
        for name in ("products", "attention", "passes", "update", "communication", "idle")
    }
    return figures | {
        "step": f"{duration(time.total)}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005),
        "tokens per second": rate,
        "MFU": round(useful / (machine.peak * run.workers), 4),
        "time": duration(seconds),
        "days": seconds / 86400,
        f"cost {price.currency}": run.workers * hourly * seconds / 3600,
        "energy kWh": run.workers * watts * seconds / 3.6e6,
    }


def storage_figures(run: RunShape) -> dict[str, Any]:
    """Bytes that land in the store, and the cache that the model will need where it is served."""
    number = run.model.parameters()
    return {
        "model folder GB": number * 4 / 1e9,
        "checkpoint GB": checkpoint_bytes(run) / 1e9,
        "host memory GiB per worker while one is written": checkpoint_bytes(run)
        / run.workers
        / GIB,
        "KV cache bytes per token": run.model.kv_bytes_per_token(),
    }


def checkpoint_bytes(run: RunShape) -> float:
    """One checkpoint: weights and the optimizer's state, float32."""
    return run.model.parameters() * (4.0 + optimizer_bytes(run))
