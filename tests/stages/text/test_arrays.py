"""Arrays come back as they were written, and what a disk does not take is an error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.text.arrays import save_array, write_array
from stages.text.token_shards import TokenWriter

LIMIT_BYTES = 16 << 10


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process cannot grow beyond the limit, as on a disk that is full there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("shape", [(0,), (7,), (3, 0), (3, 70_000)])
def test_arrays_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    for made in (array, array.T):
        save_array(tmp_path / "a.npy", made)
        assert np.array_equal(np.load(tmp_path / "a.npy"), made)
        with (tmp_path / "a.u64").open("wb") as file:
            write_array(file, made)
            write_array(file, made)
        found = np.fromfile(tmp_path / "a.u64", dtype=np.uint64)
        assert np.array_equal(found, np.concatenate([made.ravel(), made.ravel()]))


@pytest.mark.parametrize("numbers", [2_100, 2_500, 50_000])
def test_what_the_disk_does_not_take_is_an_error(
    tmp_path: Path, small_disk: None, numbers: int
) -> None:
    array = np.arange(numbers, dtype=np.uint64)
    with pytest.raises(OSError):
        save_array(tmp_path / "a.npy", array)
    with pytest.raises(OSError), (tmp_path / "a.u64").open("wb") as file:
        write_array(file, array)


def test_token_shards_are_whole_or_an_error(tmp_path: Path, small_disk: None) -> None:
    writer = TokenWriter(tmp_path, 1000, end_of_text=0)
    writer.add("a", list(range(9_000)))  # 18 kB, of which C's buffers would lose the end
    with pytest.raises(OSError):
        writer.close()
