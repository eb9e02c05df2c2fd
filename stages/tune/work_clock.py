"""How long a rank's own work takes, outside collectives: what tells a slow rank from its peers.

ZeRO 3, tensor and sequence parallelism exchange in the middle of a forward pass, where all ranks
wait for the slowest; that waiting is none of a rank's own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from stages.tune.exchange_clock import ExchangeClock


class WorkClock:
    """Adds up the seconds of the blocks run under it, less what `exchanges` counts in them; on a
    GPU, of the kernels they queued.
    """

    def __init__(self, exchanges: ExchangeClock) -> None:
        self._exchanges = exchanges
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []
        self._waits: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        exchanges = self._exchanges
        if exchanges.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first = len(exchanges.events)
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
            self._waits += exchanges.events[first:]
            return
        begun, waited = time.perf_counter(), exchanges.seconds
        yield
        self._seconds += time.perf_counter() - begun - (exchanges.seconds - waited)

    def take(self) -> float:
        """The seconds since the last `take`. On a GPU it waits for the kernels of the blocks."""
        seconds = self._seconds
        for sign, pairs in ((1, self._events), (-1, self._waits)):
            for begin, end in pairs:
                end.synchronize()
                seconds += sign * begin.elapsed_time(end) / 1000
        self._seconds, self._events, self._waits = 0.0, [], []
        return max(0.0, seconds)
