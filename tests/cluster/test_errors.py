"""The cause inside what Ray and Ray Train wrap around it."""

from __future__ import annotations

import errno

import pytest
import torch
from ray.exceptions import RayTaskError
from ray.train import WorkerGroupError

from cluster.errors import UserError, device_memory_is_full, disk_is_full, root_cause, user_error_in


def task_error(cause: Exception) -> Exception:
    return RayTaskError(
        "work", "Traceback (most recent call last): ...", cause
    ).as_instanceof_cause()


def test_a_users_mistake_is_found_in_every_wrapping() -> None:
    mistake = UserError("found x, expected y")
    chained = RuntimeError("outer")
    chained.__cause__ = mistake
    for error in (
        mistake,
        chained,
        task_error(mistake),
        WorkerGroupError("workers died", {1: task_error(mistake)}),
    ):
        found = user_error_in(error)
        assert found is not None and str(found) == "found x, expected y"
    assert user_error_in(RuntimeError("x")) is None


def test_a_full_disk_is_found_in_a_worker() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert disk_is_full(WorkerGroupError("workers died", {0: task_error(full)}))
    told = RuntimeError("I/O error: No space left on device (os error 28)")  # safetensors'
    assert disk_is_full(WorkerGroupError("workers died", {0: task_error(told)}))
    assert not disk_is_full(OSError(errno.ENOENT, "no such file"))


def test_a_full_device_is_found_in_a_worker() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert device_memory_is_full(WorkerGroupError("workers died", {0: task_error(full)}))
    with pytest.raises(RuntimeError) as too_large:
        torch.empty(2**50)
    assert device_memory_is_full(too_large.value)
    assert not device_memory_is_full(RuntimeError("connection closed by peer"))


def test_the_root_cause_is_one_line() -> None:
    error = WorkerGroupError("workers died", {0: task_error(ValueError("bad\nshape 3"))})
    assert root_cause(error) == "ValueError: shape 3"


def test_an_error_in_a_circle_ends() -> None:
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert root_cause(one) == "RuntimeError: two"
