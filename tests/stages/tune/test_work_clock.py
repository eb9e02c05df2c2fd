"""A rank's own work is what runs under its clock outside collectives, and nothing else."""

from __future__ import annotations

import time

import pytest
import torch
import torch.distributed as dist

from stages.tune.exchange_clock import ExchangeClock
from stages.tune.work_clock import WorkClock


def test_only_what_runs_under_the_clock_counts() -> None:
    clock = WorkClock(ExchangeClock(torch.device("cpu")))
    for _ in range(2):
        with clock.running():
            time.sleep(0.05)
        begun = time.perf_counter()
        time.sleep(0.2)  # waiting for the others
        waited = time.perf_counter() - begun
    taken = clock.take()
    assert taken >= 0.1
    assert clock.take() == 0.0 and waited >= 0.2


def test_waiting_in_the_middle_of_work_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_gather", lambda: time.sleep(0.3))
    exchanges = ExchangeClock(torch.device("cpu"))
    clock = WorkClock(exchanges)
    with exchanges.exchanging():
        begun = time.perf_counter()
        with clock.running():
            time.sleep(0.05)
            dist.all_gather()  # type: ignore[call-arg]
        whole = time.perf_counter() - begun
    assert 0.05 <= clock.take() <= whole - 0.3
