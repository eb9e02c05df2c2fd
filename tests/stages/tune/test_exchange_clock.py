"""Exposed communication: what is inside a collective counts, nested and waited for alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from stages.tune.exchange_clock import ExchangeClock

SLOW_S = 0.05


class Work:
    def wait(self) -> str:
        time.sleep(SLOW_S)
        return "waited"

    def is_completed(self) -> bool:
        return False


def test_collectives_count_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(tensor: Any = None, async_op: bool = False) -> Work | None:
        if async_op:
            return Work()
        dist.barrier()  # a collective made of another counts once
        return None

    monkeypatch.setattr(dist, "barrier", lambda: time.sleep(SLOW_S))
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    clock = ExchangeClock(torch.device("cpu"))
    with clock.exchanging():
        dist.all_reduce()
        assert SLOW_S <= clock.take() < 1.9 * SLOW_S
        time.sleep(SLOW_S)
        work: Any = dist.all_reduce(async_op=True)
        assert clock.take() < SLOW_S / 2
        assert not work.is_completed()
        assert work.wait() == "waited"
        assert clock.take() >= SLOW_S
    assert dist.all_reduce is all_reduce


def test_what_deepspeed_keeps_of_torch_counts_too(one_rank: Path) -> None:
    import deepspeed.comm

    deepspeed.comm.init_distributed("gloo", dist_init_required=False)
    clock = ExchangeClock(torch.device("cpu"))
    one, gathered = torch.ones(3), torch.zeros(3)
    with clock.exchanging():
        deepspeed.comm.all_gather_into_tensor(gathered, one)
        assert clock.take() > 0
    deepspeed.comm.all_gather_into_tensor(gathered, one)
    assert clock.take() == 0 and torch.equal(gathered, one)
