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
from ray.exceptions import RayActorError, RayError, RayTaskError


@dataclass(frozen=True)
class Failure:
    """An item that no actor could process. Not a result."""

    reason: str
    attempts: int


class PoolBroken(RuntimeError):
    """Actors die one after the other without a result between: going on has no point."""


@dataclass
class _Item:
    index: int
    value: Any
    attempts: int = 0
    avoid: int | None = None  # the slot it last failed on


@dataclass
class _Slot:
    actor: Any
    queue: deque[tuple[Any, _Item]] = field(default_factory=deque)  # (result reference, item)
    head_since: float = 0.0


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
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one actor, not {size}")
        self._remote: Any = ray.remote(actor_class)
        self._options = {"num_cpus": 1, **(options or {})}
        self._args, self._kwargs = args, dict(kwargs or {})
        self.attempts, self.depth = attempts, depth
        self.restarts = 0
        self._barren = 0  # restarts since the last result
        self._slots = [_Slot(self._start()) for _ in range(size)]

    @property
    def actors(self) -> list[Any]:
        """The actor handles now alive, for calls that are not items (loading weights, say)."""
        return [slot.actor for slot in self._slots]

    def map(self, method: str, items: Iterable[Any], *, deadline_s: float) -> list[Any]:
        """`method(item)` of some actor for each item, in the items' order; see `imap`."""
        return list(self.imap(method, items, deadline_s=deadline_s))

    def imap(self, method: str, items: Iterable[Any], *, deadline_s: float) -> Iterator[Any]:
        """Results (or `Failure`) in order as they come; reads `items` no faster than needed.

        An item's clock starts when it reaches the head of its actor's queue. One `imap` at a time.
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
                self._barren = 0

    def close(self) -> None:
        """Kill the actors."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def __enter__(self) -> ActorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Any:
        return self._remote.options(**self._options).remote(*self._args, **self._kwargs)

    def _restart(self, number: int) -> list[_Item]:
        """Replace an actor; returns the items that were queued at it."""
        slot = self._slots[number]
        ray.kill(slot.actor)
        self._slots[number] = _Slot(self._start())
        self.restarts += 1
        self._barren += 1
        return [item for _, item in slot.queue]

    def _in_flight(self) -> int:
        return sum(len(slot.queue) for slot in self._slots)

    def _fill(self, method: str, waiting: deque[_Item]) -> None:
        """Hand waiting items to the actors with the shortest queues."""
        for _ in range(len(waiting)):
            item = waiting.popleft()
            free = [
                number
                for number, slot in enumerate(self._slots)
                if len(slot.queue) < self.depth and (number != item.avoid or len(self._slots) == 1)
            ]
            if not free:
                waiting.append(item)
                continue
            slot = self._slots[min(free, key=lambda number: len(self._slots[number].queue))]
            if not slot.queue:
                slot.head_since = time.monotonic()
            slot.queue.append((getattr(slot.actor, method).remote(item.value), item))

    def _collect(self, done: dict[int, Any], waiting: deque[_Item], deadline_s: float) -> None:
        """Wait for the next result or deadline and settle whatever is due."""
        now = time.monotonic()
        busy = [slot for slot in self._slots if slot.queue]
        heads = [slot.queue[0][0] for slot in busy]
        left = min(slot.head_since for slot in busy) + deadline_s - now
        ready, _ = ray.wait(heads, num_returns=1, timeout=max(0.0, left))
        if ready:
            ready, _ = ray.wait(heads, num_returns=len(heads), timeout=0)
        settled = set(ready)
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if not slot.queue:
                continue
            reference, item = slot.queue[0]
            if reference in settled:
                self._settle(number, reference, item, done, waiting)
            elif now - slot.head_since > deadline_s:
                self._lost(number, f"no result within {deadline_s:g} s", done, waiting)

    def _settle(
        self, number: int, reference: Any, item: _Item, done: dict[int, Any], waiting: deque[_Item]
    ) -> None:
        """Take the head's result off its slot."""
        slot = self._slots[number]
        try:
            value = ray.get(reference)
        except RayActorError as error:
            self._lost(number, f"its actor died: {_first_line(error)}", done, waiting)
            return
        except RayTaskError as error:
            slot.queue.popleft()
            self._again(item, number, f"the actor raised {_last_line(error)}", done, waiting)
        except RayError as error:
            self._lost(number, f"Ray failed: {_first_line(error)}", done, waiting)
            return
        else:
            slot.queue.popleft()
            done[item.index] = value
            self._barren = 0
        slot.head_since = time.monotonic()

    def _lost(self, number: int, reason: str, done: dict[int, Any], waiting: deque[_Item]) -> None:
        """An actor is gone: its head item failed once, those behind it only lost their place."""
        head, *behind = self._restart(number)
        waiting.extendleft(reversed(behind))
        self._again(head, number, reason, done, waiting)
        if self._barren > max(10, 3 * self.attempts * len(self._slots)):
            raise PoolBroken(f"{self._barren} actors were lost without a result; last: {reason}")

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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
