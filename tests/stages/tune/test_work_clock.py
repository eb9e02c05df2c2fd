"""A rank's own work is what runs under its clock, and nothing else."""

from __future__ import annotations

import time

import torch

from stages.tune.work_clock import WorkClock


def test_only_what_runs_under_the_clock_counts() -> None:
    clock = WorkClock(torch.device("cpu"))
    for _ in range(2):
        with clock.running():
            time.sleep(0.05)
        begun = time.perf_counter()
        time.sleep(0.2)  # waiting for the others
        waited = time.perf_counter() - begun
    taken = clock.take()
    assert taken >= 0.1
    assert clock.take() == 0.0 and waited >= 0.2
