"""Streams items through worker objects with Ray Data: one bundle of items at a time to each of a
pool of actors.

Items are taken largest first and small ones are bundled, so that the last actor to finish has
little left. Workers commit their results to files, so only numbers come back; what Ray retries
after a worker's death is found committed, or done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cluster.errors import UserError

_BUNDLES_PER_WORKER = 8
MakeWorker = Callable[[], Callable[[Any], str]]


class _Actor:
    """What runs in the pool: the worker made there, and the items it is given the bundles of."""

    def __init__(self, work: Any) -> None:
        import ray

        make_worker, self._items, self._bundles = ray.get(work)
        self._worker = make_worker()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        numbers = [number for bundle in batch["bundle"] for number in self._bundles[int(bundle)]]
        for number in numbers:
            self._worker(self._items[number])
        return {"done": numbers}


def bundles(weights: Sequence[float], workers: int) -> list[list[int]]:
    """The numbers of the items, heaviest first, in bundles of about equal weight."""
    full = sum(weights) / (workers * _BUNDLES_PER_WORKER)
    found: list[list[int]] = []
    weight = full
    for number in sorted(range(len(weights)), key=lambda n: (-weights[n], n)):
        if weight >= full:
            found.append([])
            weight = 0.0
        found[-1].append(number)
        weight += weights[number]
    return found


def stream(
    make_worker: MakeWorker,
    items: Sequence[Any],
    workers: int,
    weights: Sequence[float] | None = None,
) -> Iterator[int]:
    """Yield each item's number when it is done, in any order. With no workers, work in this
    process. `weights` are about proportional to the items' work; all are alike if not given.
    """
    if not items:
        return
    if workers == 0:
        worker = make_worker()
        for number, item in enumerate(items):
            worker(item)
            yield number
        return
    workers = min(workers, len(items))
    shares = bundles(weights or [1.0] * len(items), workers)
    yield from _stream_with_ray(make_worker, items, shares, min(workers, len(shares)))


def _stream_with_ray(
    make_worker: MakeWorker, items: Sequence[Any], shares: Sequence[Sequence[int]], workers: int
) -> Iterator[int]:
    import ray
    import ray.data  # sets its logger's level, so ours comes after
    from ray.exceptions import RayTaskError

    # Ray Data tells of its plan and warns that its bars are off, at every run.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    work = ray.put((make_worker, items, shares))  # once, not in each actor's arguments
    rows = [{"bundle": number} for number in range(len(shares))]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(work,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
    )
    try:
        for row in dataset.iter_rows():
            yield row["done"]
    except RayTaskError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise cause or error from error
