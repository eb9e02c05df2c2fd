"""A supervised pool of Ray actors: deadlines, retries, backpressure, results in order.

The pool owns its actors and replaces the dead: an item whose actor dies, or that overruns its
deadline (the actor is then killed), goes to another actor up to `attempts` times. What still fails
comes back as a `Failure` in the item's place, so that an infrastructure failure is never mistaken
for a result. At most `size * depth` items are in flight and as many results wait for their turn,
however long the input is.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError


@dataclass(frozen=True)
class Failure:
    """An item that no actor could process. Not a result."""

    reason: str
    attempts: int


class PoolBroken(RuntimeError):
    """One actor after the other cannot start: going on has no point."""


@dataclass
class _Item:
    index: int
    value: Any
    attempts: int = 0
    avoid: int | None = None  # the slot it last failed on


@dataclass
class _Slot:
    actor: Any
    starting: Any  # a reference that resolves when the actor is up; None from then on
    since: float = field(default_factory=time.monotonic)  # of the start, or of the queue's head
    queue: deque[tuple[Any, _Item]] = field(default_factory=deque)  # (result reference, item)

    @property
    def awaited(self) -> Any:
        """What to wait for next, or None when idle."""
        return self.starting or (self.queue[0][0] if self.queue else None)


class ActorPool:
    """`size` actors of `actor_class` (a plain class), each made with `args` and `kwargs`.

    `options` go to Ray (`num_cpus`, `runtime_env`, ...). `depth` items are queued at an actor at
    once, the first of them running.
    """

    def __init__(
        self,
        actor_class: type,
        size: int,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        attempts: int = 3,
        depth: int = 2,
        start_s: float = 180.0,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one actor, not {size}")
        self._remote: Any = ray.remote(actor_class)
        self._options = {"num_cpus": 1, **(options or {})}
        self._args, self._kwargs = args, dict(kwargs or {})
        self.attempts, self.depth, self.start_s = attempts, depth, start_s
        self.restarts = 0
        self._failed_starts = 0  # in a row
        self._slots = [self._start() for _ in range(size)]

    @property
    def actors(self) -> list[Any]:
        """The actor handles now alive, for calls that are not items (loading weights, say)."""
        return [slot.actor for slot in self._slots]

    def map(self, method: str, items: Iterable[Any], *, deadline_s: float) -> list[Any]:
        """`method(item)` of some actor for each item, in the items' order; see `imap`."""
        return list(self.imap(method, items, deadline_s=deadline_s))

    def imap(self, method: str, items: Iterable[Any], *, deadline_s: float) -> Iterator[Any]:
        """Results (or `Failure`) in order as they come; reads `items` no faster than needed.

        An item's clock starts when it reaches the head of the queue of an actor that is up. One
        `imap` at a time.
        """
        source = (_Item(index, value) for index, value in enumerate(items))
        waiting: deque[_Item] = deque()
        done: dict[int, Any] = {}
        window = len(self._slots) * self.depth * 2
        following = 0
        try:
            while True:
                room = window - len(done) - len(waiting) - self._in_flight()
                waiting.extend(itertools.islice(source, max(0, room)))
                self._fill(method, waiting)
                while following in done:
                    yield done.pop(following)
                    following += 1
                if not self._in_flight() and not waiting:
                    # Everything read is answered; the source may still hold more.
                    nothing = next(source, None)
                    if nothing is None:
                        return
                    waiting.append(nothing)
                    continue
                self._collect(done, waiting, deadline_s)
        finally:
            if self._in_flight():  # the reader stopped early: leave no work behind
                for number, slot in enumerate(self._slots):
                    if slot.queue:
                        self._restart(number)

    def close(self) -> None:
        """Kill the actors."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def __enter__(self) -> ActorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Slot:
        actor = self._remote.options(**self._options).remote(*self._args, **self._kwargs)
        return _Slot(actor, actor.__ray_ready__.remote())

    def _restart(self, number: int) -> list[_Item]:
        """Replace an actor; returns the items that were queued at it."""
        slot = self._slots[number]
        ray.kill(slot.actor)
        self._slots[number] = self._start()
        self.restarts += 1
        return [item for _, item in slot.queue]

    def _in_flight(self) -> int:
        return sum(len(slot.queue) for slot in self._slots)

    def _fill(self, method: str, waiting: deque[_Item]) -> None:
        """Hand waiting items to the actors with the shortest queues."""
        for _ in range(len(waiting)):
            item = waiting.popleft()
            free = [number for number in range(len(self._slots)) if self._takes(number, item)]
            if not free:
                waiting.append(item)
                continue
            slot = self._slots[min(free, key=lambda number: len(self._slots[number].queue))]
            if not slot.queue:
                slot.since = time.monotonic()
            slot.queue.append((getattr(slot.actor, method).remote(item.value), item))

    def _takes(self, number: int, item: _Item) -> bool:
        """Whether an actor may have the item now.

        One that failed before goes elsewhere and is alone there: a neighbour's death can take the
        result that was just on its way, and would be counted against it again.
        """
        slot = self._slots[number]
        alone = not slot.queue or not (item.attempts or slot.queue[-1][1].attempts)
        elsewhere = number != item.avoid or len(self._slots) == 1
        return slot.starting is None and len(slot.queue) < self.depth and alone and elsewhere

    def _collect(self, done: dict[int, Any], waiting: deque[_Item], deadline_s: float) -> None:
        """Wait for the next result, start or deadline and settle whatever is due."""

        def limit(slot: _Slot) -> float:
            return slot.since + (deadline_s if slot.starting is None else self.start_s)

        busy = [slot for slot in self._slots if slot.awaited is not None]
        awaited = [slot.awaited for slot in busy]
        left = min(map(limit, busy)) - time.monotonic()
        ready, _ = ray.wait(awaited, num_returns=1, timeout=max(0.0, left))
        if ready:
            ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
        settled = set(ready)
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.awaited is None:
                continue
            if slot.awaited in settled:
                self._settle(number, done, waiting)
            elif now > limit(slot):
                what = "no result" if slot.starting is None else "not started"
                self._lost(number, f"{what} within {now - slot.since:.3g} s", done, waiting)

    def _settle(self, number: int, done: dict[int, Any], waiting: deque[_Item]) -> None:
        """An actor is up, or its head item has a result, an error, or no actor any more."""
        slot = self._slots[number]
        try:
            value = ray.get(slot.awaited)
        except RayTaskError as error:
            _, item = slot.queue.popleft()
            self._again(item, number, f"the actor raised {_last_line(error)}", done, waiting)
        except RayError as error:
            self._lost(number, f"its actor died: {_first_line(error)}", done, waiting)
            return
        else:
            if slot.starting is not None:
                slot.starting = None
                self._failed_starts = 0
            else:
                _, item = slot.queue.popleft()
                done[item.index] = value
        slot.since = time.monotonic()

    def _lost(self, number: int, reason: str, done: dict[int, Any], waiting: deque[_Item]) -> None:
        """An actor is gone: its head item failed once, those behind it only lost their place."""
        self._failed_starts += self._slots[number].starting is not None
        if self._failed_starts > 2 * len(self._slots):
            raise PoolBroken(
                f"{self._failed_starts} actors could not start; last: {reason}. Each asks for "
                f"{self._options['num_cpus']:g} CPUs, and {room()}"
            )
        lost = self._restart(number)
        if lost:
            waiting.extendleft(reversed(lost[1:]))
            self._again(lost[0], number, reason, done, waiting)

    def _again(
        self, item: _Item, number: int, reason: str, done: dict[int, Any], waiting: deque[_Item]
    ) -> None:
        """Queue a failed item again, elsewhere, or give it up."""
        item.attempts += 1
        item.avoid = number
        if item.attempts >= self.attempts:
            done[item.index] = Failure(reason, item.attempts)
        else:
            waiting.appendleft(item)


def room() -> str:
    """What the cluster has for actors that wait for a place, in words."""
    free = ray.available_resources().get("CPU", 0.0)
    return f"the cluster has {ray.cluster_resources().get('CPU', 0.0):g}, {free:g} of them free"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
