"""The user's mistakes as one exception, and how to find a cause inside a framework's wrapping.

Ray and Ray Train wrap what a worker raised, several layers deep; a user should read the cause.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A mistake the user can mend. The command prints it without a traceback and exits with 2."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and everything it wraps: Python's chain, Ray's `cause`, Ray Train's workers."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [current.__cause__, current.__context__, getattr(current, "cause", None)]
        inner.append(getattr(current, "controller_failure", None))
        workers = getattr(current, "worker_failures", None)
        inner.extend(workers.values() if isinstance(workers, Mapping) else [])
        waiting.extend(item for item in inner if isinstance(item, BaseException))


def user_error_in(error: BaseException) -> UserError | None:
    """The user's mistake that an exception carries, or None.

    Ray raises a class made of its own and the cause's; the plain cause has the plain sentence.
    """
    found = [item for item in causes(error) if isinstance(item, UserError)]
    plain = [item for item in found if type(item) is UserError]
    return next(iter(plain or found), None)


def disk_is_full(error: BaseException) -> bool:
    """Whether writing failed for want of space (or quota).

    Libraries that write from Rust or C++ raise their own class with the system's sentence in it.
    """
    return any(
        (isinstance(item, OSError) and item.errno in _NO_SPACE)
        or any(os.strerror(number) in str(item) for number in _NO_SPACE)
        for item in causes(error)
    )


def device_memory_is_full(error: BaseException) -> bool:
    """Whether torch found no room for a tensor, on a GPU or (its own allocator) on the host.

    By name and by text, since this package does without torch.
    """
    return any(
        type(item).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: " in str(item)
        for item in causes(error)
    )


def root_cause(error: BaseException) -> str:
    """One line for what happened at the bottom: the last wrapped exception that says something."""
    said = [item for item in causes(error) if str(item).strip()]
    last = said[-1] if said else error
    lines = [line.strip() for line in str(last).splitlines() if line.strip()]
    return f"{type(last).__name__}: {lines[-1] if lines else 'no message'}"[:300]
