"""How long a rank waits for other ranks: the exposed time of its collectives.

While `exchanging` is on, the functions of `torch.distributed` add up the time they take, whoever
calls them (DeepSpeed calls them through the same names, but for two that it keeps). On a processor
that is the time in the call, or in `wait` where it was asynchronous; on a GPU the time that the
current stream waits, by CUDA events. What is hidden behind computing does not count: it costs
nothing.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVES = (
    "all_reduce", "reduce", "broadcast", "all_gather", "all_gather_into_tensor", "reduce_scatter",
    "reduce_scatter_tensor", "all_to_all", "all_to_all_single", "barrier", "send", "recv",
)  # fmt: skip
KEPT_BY_DEEPSPEED = ("all_gather_function", "reduce_scatter_function")


class ExchangeClock:
    """Seconds spent in collectives since the last `take`."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.seconds = 0.0
        self.events: list[tuple[Any, Any]] = []
        self.depth = 0

    @contextlib.contextmanager
    def exchanging(self) -> Iterator[None]:
        """Count collectives while the block runs."""
        found = [(dist, name, getattr(dist, name)) for name in COLLECTIVES]
        if backend := getattr(sys.modules.get("deepspeed.comm.comm"), "cdb", None):
            found += [(backend, name, getattr(backend, name)) for name in KEPT_BY_DEEPSPEED]
        for owner, name, function in found:
            setattr(owner, name, self._timed(function))
        try:
            yield
        finally:
            for owner, name, function in found:
                setattr(owner, name, function)

    def take(self) -> float:
        """The seconds since the last call; on a GPU it waits for the work begun so far."""
        seconds = self.seconds
        for begin, end in self.events:
            end.synchronize()
            seconds += begin.elapsed_time(end) / 1000
        self.seconds, self.events = 0.0, []
        return seconds

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        self.depth += 1  # one collective may be made of others
        begun, begin = time.perf_counter(), self._event()
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0 and begin is None:
                self.seconds += time.perf_counter() - begun
            elif self.depth == 0:
                self.events.append((begin, self._event()))

    def _event(self) -> Any:
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._running():
                work = function(*args, **kwargs)
            return work if work is None or not hasattr(work, "wait") else _Waited(work, self)

        return call


class _Waited:
    """An asynchronous collective whose `wait` is counted."""

    def __init__(self, work: Any, clock: ExchangeClock) -> None:
        self._work, self._clock = work, clock

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        with self._clock._running():
            return self._work.wait(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)
