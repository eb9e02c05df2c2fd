"""Whether a run fits its devices and their hosts, by part, and what to change where it does not.

An elastic run must fit on the fewest workers it may have as well: ZeRO's parts are largest there.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stages.planning.host import HostMemory, host_memory
from stages.planning.machine import Machine
from stages.planning.memory import Memory, training_memory
from stages.planning.run_shape import RunShape

GIB = 2**30
HOST_ADVICE = {
    "checkpoint": "more workers, or a smaller model",
    "process": "more of hardware.host_memory_gb, or fewer hardware.per_node",
}
LESS_OFFLOADED = "more workers, more of hardware.host_memory_gb, or offload less"


def memory_figures(run: RunShape, machine: Machine) -> dict[str, Any]:
    """Memory of one worker and what it takes of its host by part, and whether both hold it; of an
    elastic run with the fewest workers and the most.
    """
    figures: dict[str, Any] = {}
    for sized in run.sizes:
        at = where(sized, run)
        figures |= parts_of(f"memory GiB{at}", training_memory(sized))
        figures[f"memory GiB{at}: reserve"] = round(training_memory(sized).reserve / GIB, 4)
        if run.config.parallel.gpu:
            figures |= parts_of(f"host memory GiB{at}", host_memory(sized))
    if run.config.parallel.gpu:
        name = "host memory GiB a worker may take (of hardware.host_memory_gb)"
        figures[name] = round(machine.host_memory / GIB, 4)
    return figures | {"fits": verdict(run, machine)}


def where(sized: RunShape, run: RunShape) -> str:
    """The number of workers, where the run may have others."""
    if len(run.sizes) == 1:
        return ""
    return f" with {sized.workers} worker{'s' if sized.workers > 1 else ''}"


def parts_of(name: str, memory: Memory | HostMemory) -> dict[str, float]:
    """The parts and their sum. Of the host only what is there; a device has all parts."""
    parts = {
        part: size for part, size in asdict(memory).items() if size or isinstance(memory, Memory)
    }
    parts["total per worker"] = memory.total
    return {f"{name}: {part}": round(size / GIB, 4) for part, size in parts.items()}


def verdict(run: RunShape, machine: Machine) -> str:
    """Whether every size of the run fits, and what to change where one does not."""
    bad: list[str] = []
    good: list[str] = []
    for sized in run.sizes:
        at = where(sized, run).strip()
        capacity = machine.memory
        if not run.config.parallel.gpu:  # a part of this machine's, larger with fewer workers
            capacity *= run.workers / sized.workers
        for fits, said in (on_device(sized, machine.name, capacity), on_host(sized, machine)):
            if said:
                (good if fits else bad).append(f"{at} {said}".strip())
    if not bad:
        return "yes: " + "; ".join(good)
    return "NO: " + "; ".join([*bad, *(f"{said} fits" for said in good if len(run.sizes) > 1)])


def on_device(run: RunShape, name: str, capacity: float) -> tuple[bool, str]:
    """(whether the device holds it, how much of what)."""
    memory = training_memory(run)
    held, reserve = memory.total / GIB, memory.reserve / GIB
    found = f"{held:.1f} and {reserve:.1f} in reserve of {capacity / GIB:.1f} GiB on {name}"
    if memory.fits(capacity):
        return True, found
    largest = largest_of(memory)
    return False, f"{found}, most of it {largest}: try {advice_for(largest, run)}"


def advice_for(largest: str, run: RunShape) -> str:
    """What makes the largest part smaller and is neither done already nor refused."""
    parallel = run.config.parallel
    ways: dict[str, list[tuple[str, bool]]] = {
        "weights": [
            ("parallel.zero 3", parallel.zero < 3 and divides(run)),
            ("more workers", parallel.zero == 3),
            ("parallel.offload_weights: cpu", parallel.zero == 3 and offers(run, "weights")),
            ("a larger parallel.tensor", slices(run)),
            ("a larger parallel.pipeline", parallel.pipeline > 1),
        ],
        "gradients": [
            ("parallel.zero 2", parallel.zero < 2 and parallel.pipeline == 1),
            ("more workers", parallel.zero >= 2),
            ("a larger parallel.tensor", slices(run)),
            ("a larger parallel.pipeline", parallel.pipeline > 1),
        ],
        "optimizer": [
            ("parallel.zero 1 or more", parallel.zero == 0),
            ("more workers", parallel.zero > 0),
            ("parallel.offload_optimizer: cpu", parallel.zero > 0 and offers(run, "optimizer")),
        ],
        "activations": [
            ("parallel.activation_checkpointing: true", not parallel.activation_checkpointing),
            ("fewer parallel.rows", run.rows > 1),
            ("a larger parallel.tensor", slices(run) and run.rows == 1),
        ],
        "logits": [("fewer parallel.rows", run.rows > 1), ("a smaller vocabulary", True)],
        "buffers": [
            ("parallel.zero 1 or 2, with which Muon hands fewer matrices round",
             parallel.zero == 3 and run.config.optimizer == "muon"),
        ],
    }  # fmt: skip
    left = [way for way, helps in ways[largest] if helps]
    return ", or ".join(left or ["a device with more memory", "a smaller model"])


def divides(run: RunShape) -> bool:
    """Whether ZeRO 3 goes with the other degrees."""
    return run.config.parallel.pipeline == run.config.parallel.sequence == 1


def slices(run: RunShape) -> bool:
    """Whether tensor parallelism, or more of it, goes with the model and the other degrees."""
    model = run.model
    heads = model.num_key_value_heads % (2 * run.config.parallel.tensor) == 0
    plain = heads and not (model.num_experts or model.latent)
    return plain and divides(run) and run.config.optimizer == "adamw"


def offers(run: RunShape, part: str) -> bool:
    """Whether this part may still be offloaded."""
    parallel = run.config.parallel
    adamw = part == "weights" or run.config.optimizer == "adamw"
    return parallel.gpu and adamw and getattr(parallel, f"offload_{part}") is None


def on_host(run: RunShape, machine: Machine) -> tuple[bool, str]:
    """The same of the host; nothing is said of a processor, which is its own."""
    if not run.config.parallel.gpu:
        return True, ""
    memory = host_memory(run)
    found = f"{memory.total / GIB:.1f} of {machine.host_memory / GIB:.1f} GiB"
    if memory.total <= machine.host_memory:
        offloads = run.config.parallel.offload_optimizer or run.config.parallel.offload_weights
        return True, f"{found} of the host" if offloads else ""
    largest = largest_of(memory)
    advice = HOST_ADVICE.get(largest, LESS_OFFLOADED)
    return False, f"does not fit the host: {found} a worker, most of it {largest}: try {advice}"


def largest_of(memory: Memory | HostMemory) -> str:
    parts: dict[str, float] = asdict(memory)
    return max(parts, key=lambda name: parts[name])
