"""What a piece of work took: wall and CPU seconds, peak memory, and estimates of cost and energy.

Counts the tree of processes below this one, Ray's included when it was started here. On a cluster
that was joined, the tree is only the driver, so what the cluster holds is counted for the time it
was held. The processor's energy comes from its own counter (RAPL) where that is readable, else from
CPU-seconds and watts per core; a GPU's always from the time it was held.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
from pydantic import BaseModel, ConfigDict, Field

from cluster import session

RAPL = Path("/sys/class/powercap")
DEVICES = Path("/dev")
SAMPLE_S = 1.0
READING_SHARE = 0.02
"""Of the time, for reading memory: the kernel walks every page table of every process, and the
processes wait for it meanwhile.
"""


class Pricing(BaseModel):
    """What resources cost (per hour, storage per GB and month, in `currency`) and draw (in watts),
    for estimates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    cpu_core_hour: float = Field(default=0.04, ge=0)
    gpu_hour: float = Field(default=2.5, ge=0)
    watts_per_core: float = Field(default=8.0, ge=0)
    watts_per_gpu: float = Field(default=600.0, ge=0)
    store_gb_month: float = Field(default=0.023, ge=0)
    """Of an object store: the list price of S3 Standard (us-east-1, first 50 TB)."""
    currency: str = "USD"


@dataclass(frozen=True)
class Usage:
    """What a piece of work took. `energy_source` is "RAPL" if all of the energy was measured, "RAPL
    and estimate" if GPUs were held beside, else "estimate".
    """

    seconds: float
    cpu_seconds: float
    peak_pss_bytes: int
    cost: float
    currency: str
    energy_kwh: float
    energy_source: str


class Meter:
    """Measures between `__enter__` and `__exit__`; `usage()` then holds what it took.

    A thread samples the tree once a second, so that a process which ends in between is counted
    up to its last sample.
    """

    def __init__(self, pricing: Pricing | None = None) -> None:
        self.pricing = pricing or Pricing()
        self._cpu: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}
        self._peak = 0
        self._next_reading = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> Meter:
        self._start = time.monotonic()
        self._joules = read_rapl()
        self._before = dict(_tree_cpu())
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self.seconds = time.monotonic() - self._start
        self._joules_after = read_rapl()

    def usage(self) -> Usage:
        """What the work took; call it after the block."""
        cpu_seconds = sum(
            seconds - self._before.get(process, 0.0) for process, seconds in self._cpu.items()
        )
        cpus, gpu_count = held_resources()
        hours = self.seconds / 3600
        price = self.pricing
        joined = _joined_cluster()
        busy = cpus * self.seconds if joined else cpu_seconds
        joules, source = busy * price.watts_per_core, "estimate"
        if self._joules is not None and self._joules_after is not None and not joined:
            measured = self._joules_after - self._joules
            if measured > 0:
                joules, source = measured, "RAPL and estimate" if gpu_count else "RAPL"
        joules += gpu_count * self.seconds * price.watts_per_gpu
        return Usage(
            seconds=round(self.seconds, 2),
            cpu_seconds=round(busy, 2),
            peak_pss_bytes=self._peak,
            currency=price.currency,
            cost=round(hours * (cpus * price.cpu_core_hour + gpu_count * price.gpu_hour), 6),
            energy_kwh=round(joules / 3.6e6, 8),
            energy_source=source,
        )

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        self._cpu.update(_tree_cpu())
        began = time.monotonic()
        if began >= self._next_reading or self._stop.is_set():
            self._peak = max(self._peak, tree_pss_bytes())
            took = time.monotonic() - began
            self._next_reading = began + took / READING_SHARE


def held_resources() -> tuple[float, float]:
    """Cores and GPUs that this run holds: the joined cluster's, or this machine's."""
    if _joined_cluster():
        import ray

        there = ray.cluster_resources()
        return float(there.get("CPU", 0.0)), float(there.get("GPU", 0.0))
    return float(session.cores()), float(gpus())


def gpus() -> int:
    """GPUs of this machine that this process may use."""
    there = sum(bool(re.fullmatch(r"nvidia\d+", file.name)) for file in DEVICES.glob("nvidia*"))
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        return there
    named = [name.strip() for name in seen.split(",")]
    if "-1" in named:  # what comes behind it is not seen either
        named = named[: named.index("-1")]
    return min(there, sum(map(bool, named)))


def _joined_cluster() -> bool:
    """Whether a Ray cluster is used that was not started by this process."""
    ray = sys.modules.get("ray")
    return bool(ray and ray.is_initialized() and not session.started_here())


def _tree() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _tree_cpu() -> dict[tuple[int, float], float]:
    """(pid, start) -> user and system seconds, of every process of the tree.

    The seconds of children already waited for are left out: each was sampled while it lived.
    """
    seconds = {}
    for process in _tree():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds[(process.pid, process.create_time())] = times.user + times.system
    return seconds


def tree_pss_bytes() -> int:
    """Proportional set size of the tree: memory shared by n processes counts 1/n in each."""
    total = 0
    for process in _tree():
        with contextlib.suppress(OSError, psutil.Error):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def read_rapl() -> float | None:
    """Joules used by the processor packages since some moment, or None where not readable."""
    total, found = 0.0, False
    for counter in RAPL.glob("intel-rapl:[0-9]*/energy_uj"):
        if counter.parent.name.count(":") == 1:
            with contextlib.suppress(OSError, ValueError):
                total, found = total + int(counter.read_text()) / 1e6, True
    return total if found else None
