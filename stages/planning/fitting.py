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
ADVICE = {
    "weights": "parallel.zero 3, or a larger parallel.tensor",
    "gradients": "parallel.zero 2 or 3, or more workers",
    "optimizer": "parallel.zero 1 or more, more workers, or parallel.offload_optimizer: cpu",
    "activations": "parallel.activation_checkpointing: true, or fewer parallel.rows",
    "logits": "fewer parallel.rows, or a smaller vocabulary",
    "buffers": "more memory, or a smaller model",
}
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
        if run.config.parallel.gpu:
            figures |= parts_of(f"host memory GiB{at}", host_memory(sized))
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
    found = f"{memory.total / GIB:.1f} of {capacity / GIB:.1f} GiB on {name}"
    if memory.fits(capacity):
        return True, found
    largest = largest_of(memory)
    return False, f"{found}, most of it {largest}: try {advice_for(largest, run)}"


def advice_for(largest: str, run: RunShape) -> str:
    """What makes the largest part smaller that is not done already."""
    parallel = run.config.parallel
    if largest == "buffers" and run.config.optimizer == "muon":
        return "parallel.zero 1 or 2, with which Muon hands fewer matrices round"
    if largest == "optimizer" and parallel.zero:
        offers = parallel.gpu and run.config.optimizer == "adamw"
        return "more workers" + (", or parallel.offload_optimizer: cpu" if offers else "")
    return ADVICE[largest]


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
