"""Streams items through worker objects with Ray Data: one item at a time to each of a pool of
actors.

Workers commit their results to files, so only names come back; what Ray retries after a worker's
death is found committed, or done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cluster.errors import UserError


class _Actor:
    """What runs in the pool: the worker made there, and the items it is given the numbers of."""

    def __init__(
        self, make_worker: Callable[[], Callable[[Any], str]], items: Sequence[Any]
    ) -> None:
        self._worker = make_worker()
        self._items = items

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"done": [self._worker(self._items[int(number)]) for number in batch["id"]]}


def stream(
    make_worker: Callable[[], Callable[[Any], str]], items: Sequence[Any], workers: int
) -> Iterator[str]:
    """Yield each item's answer as it comes, in any order. With no workers, work in this process."""
    if not items:
        return
    if workers == 0:
        worker = make_worker()
        for item in items:
            yield worker(item)
        return
    yield from _stream_with_ray(make_worker, items, min(workers, len(items)))


def _stream_with_ray(
    make_worker: Callable[[], Callable[[Any], str]], items: Sequence[Any], workers: int
) -> Iterator[str]:
    import ray.data
    from ray.exceptions import RayTaskError

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    dataset = ray.data.range(len(items), override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(make_worker, items),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
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
