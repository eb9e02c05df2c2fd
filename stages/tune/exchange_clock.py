"""How long a rank waits for other ranks: the exposed time of its collectives.

While `exchanging` is on, the functions of `torch.distributed` add up the time they take, whoever
calls them (DeepSpeed calls them through the same names, but for two that it keeps). On a processor
that is the time in the call, or in `wait` where it was asynchronous; on a GPU the time that the
stream which computes waits, by CUDA events: for a collective of its own, or for a stream of
DeepSpeed's that exchanges beside it. What is hidden behind computing does not count: it costs
nothing. Nor does what the host waits for with a device that has nothing to do (the end of ZeRO 1's
and 2's overlapped reduction).
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
        self.computing = torch.cuda.current_stream(device) if self.cuda else None
        self.seconds = 0.0
        self.events: list[tuple[Any, Any]] = []
        self.depth = 0

    @contextlib.contextmanager
    def exchanging(self) -> Iterator[None]:
        """Count collectives while the block runs."""
        found = [(dist, name, getattr(dist, name)) for name in COLLECTIVES]
        if backend := getattr(sys.modules.get("deepspeed.comm.comm"), "cdb", None):
            found += [(backend, name, getattr(backend, name)) for name in KEPT_BY_DEEPSPEED]
        wait_stream = torch.cuda.Stream.wait_stream
        for owner, name, function in found:
            setattr(owner, name, self._timed(function))
        if self.cuda:
            torch.cuda.Stream.wait_stream = self._timed(wait_stream)  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.cuda.Stream.wait_stream = wait_stream  # type: ignore[method-assign]
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
            if self.depth == 0 and not self.cuda:
                self.seconds += time.perf_counter() - begun
            elif begin is not None and self.depth == 0 and (end := self._event()) is not None:
                self.events.append((begin, end))

    def _event(self) -> Any:
        """This moment of the stream that computes; None beside it, and on a processor."""
        if not self.cuda or torch.cuda.current_stream() != self.computing:
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
