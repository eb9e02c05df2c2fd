"""What every step is measured by: tokens/s, MFU, waiting for data and for peers, memory.

Model FLOPs utilisation is PaLM's (arXiv:2204.02311, appendix B): tokens/s x FLOPs per token over
the devices' peak. The FLOPs are those of each step's documents on all ranks: the keys that a token
really looks at, before it in its own document (`packed_flops_per_token`). The peak is the
datasheet's dense one for a known GPU, of bfloat16 for float8 runs too, as in torchtitan: only their
linear layers multiply so, and a run's figures can be held against those of the same in bfloat16.
For a processor, which has no such figure, it is what one matrix product reaches there.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator

import numpy as np
import torch

from model.config import ModelConfig
from model.flops import Precision, document_lengths, packed_flops_per_token, peak_flops
from stages.tune.exchange_clock import ExchangeClock

PROBE_WIDTH = 384
"""A product of this width takes a processor a millisecond or two."""


class StepMeter:
    """Measures the steps of one rank; `numbers` reports the last one."""

    def __init__(
        self, shape: ModelConfig, precision: Precision, world: int, device: torch.device,
        exchanges: ExchangeClock,
    ) -> None:  # fmt: skip
        self.shape, self.device, self.world = shape, device, world
        self.peak = peak_of(device, precision)
        self.exchanges = exchanges
        self.data_s = 0.0

    def begin(self) -> float:
        """Begin a step, forgetting what evaluation and checkpoints took; the time."""
        self.exchanges.take()
        return time.monotonic()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What runs inside is waiting for data."""
        begun = time.perf_counter()
        yield
        self.data_s += time.perf_counter() - begun

    def flops(self, document_ids_bt: np.ndarray) -> float:
        """FLOPs, forward and backward, of rows of packed documents."""
        lengths = document_lengths(document_ids_bt)
        return document_ids_bt.size * packed_flops_per_token(self.shape, lengths)

    def numbers(self, tokens: int, flops: float, seconds: float) -> dict[str, float]:
        """A step of so many tokens and FLOPs, over all ranks, that took `seconds`."""
        useful = flops / seconds
        values = {
            "tokens_per_second": tokens / seconds,
            "flops_per_second": useful,
            "step_seconds": seconds,
            "data_wait_seconds": self.data_s,
            "communication_seconds": self.exchanges.take(),
            "memory_gib": peak_memory_bytes(self.device) / 2**30,
        }
        if self.peak is not None:
            values["mfu"] = useful / (self.peak * self.world)
        self.data_s = 0.0
        return values


def peak_memory_bytes(device: torch.device) -> int:
    """The most this process has held so far: on its GPU, or resident in the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of(device: torch.device, precision: Precision) -> float | None:
    """FLOP/s that one worker's device could do; None for a GPU whose datasheet is not known."""
    if device.type == "cuda":
        return peak_flops(torch.cuda.get_device_name(device), precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    square = torch.ones(PROBE_WIDTH, PROBE_WIDTH, dtype=dtype)
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        square @ square
        times.append(time.perf_counter() - begun)
    return 2.0 * PROBE_WIDTH**3 / min(times)
