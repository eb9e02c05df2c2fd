"""The actor pool with real actors that raise, die and hang."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.pool import ActorPool, Failure, PoolBroken

pytestmark = [pytest.mark.dist, pytest.mark.usefixtures("ray_session")]


class Worker:
    """Doubles numbers; misbehaves once (or always) on the items it is told to."""

    def __init__(self, notes: str = "") -> None:
        self.notes = Path(notes)

    def double(self, item: int) -> int:
        return 2 * item

    def pid(self, item: int) -> int:
        return os.getpid()

    def once(self, item: tuple[int, str]) -> tuple[int, int]:
        """(2 * number, process id); the first time a told item comes, it goes wrong."""
        number, trouble = item
        note = self.notes / f"{number}"
        if trouble and not note.exists():
            note.write_text(str(os.getpid()))
            self._fail(trouble)
        return 2 * number, os.getpid()

    def always(self, item: tuple[int, str]) -> int:
        if item[1]:
            self._fail(item[1])
        return 2 * item[0]

    @staticmethod
    def _fail(trouble: str) -> None:
        if trouble == "die":
            os._exit(1)
        if trouble == "hang":
            time.sleep(600)
        raise RuntimeError("no luck today")


class Stillborn:
    def __init__(self) -> None:
        raise RuntimeError("cannot start")

    def double(self, item: int) -> int:
        return 2 * item


OPTIONS = {"num_cpus": 0.1}


def test_results_come_in_order_from_all_actors() -> None:
    with ActorPool(Worker, 2, options=OPTIONS) as pool:
        assert pool.map("double", range(50), deadline_s=60) == [2 * n for n in range(50)]
        seen: set[int] = set()
        deadline = time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < deadline:  # the second may start much later
            seen |= set(pool.map("pid", range(50), deadline_s=60))
        assert len(seen) == 2
        assert pool.map("double", [], deadline_s=60) == []
        assert pool.restarts == 0


@pytest.mark.parametrize("trouble", ["die", "hang", "raise"])
def test_an_item_is_done_again_elsewhere(trouble: str, tmp_path: Path) -> None:
    with ActorPool(Worker, 2, args=(str(tmp_path),), options=OPTIONS) as pool:
        pool.map("double", range(4), deadline_s=60)  # both have started
        items = [(n, trouble if n == 3 else "") for n in range(12)]
        results = pool.map("once", items, deadline_s=3 if trouble == "hang" else 60)
        assert [result[0] for result in results] == [2 * n for n in range(12)]
        assert results[3][1] != int((tmp_path / "3").read_text())
        assert pool.restarts == (0 if trouble == "raise" else 1)


def test_what_always_fails_is_a_failure_in_its_place(tmp_path: Path) -> None:
    with ActorPool(Worker, 2, args=(str(tmp_path),), options=OPTIONS, attempts=2) as pool:
        items = [(0, ""), (1, "die"), (2, ""), (3, "raise"), (4, "")]
        results = pool.map("always", items, deadline_s=60)
        assert [results[n] for n in (0, 2, 4)] == [0, 4, 8]
        assert isinstance(results[1], Failure) and "died" in results[1].reason
        assert isinstance(results[3], Failure) and "no luck today" in results[3].reason
        assert results[1].attempts == results[3].attempts == 2


def test_reads_no_faster_than_results_are_taken() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    with ActorPool(Worker, 2, options=OPTIONS, depth=2) as pool:
        results = pool.imap("double", source(), deadline_s=60)
        assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
        assert len(read) <= 5 + 2 * 2 * 2 + 1
        results.close()
        assert pool.map("double", [7], deadline_s=60) == [14]


def test_actors_that_never_start_break_the_pool() -> None:
    with (
        ActorPool(Stillborn, 1, options=OPTIONS) as pool,
        pytest.raises(PoolBroken, match="3 actors could not start"),
    ):
        pool.map("double", range(3), deadline_s=60)


def test_a_pool_without_actors_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one actor, not 0"):
        ActorPool(Worker, 0)


def test_actors_that_find_no_place_are_said_with_what_there_is() -> None:
    options = {**OPTIONS, "num_cpus": 1000}
    with (
        ActorPool(Worker, 1, options=options, start_s=0.5) as pool,
        pytest.raises(PoolBroken, match=r"asks for 1000 CPUs, and the cluster has \d+"),
    ):
        pool.map("double", range(3), deadline_s=60)
