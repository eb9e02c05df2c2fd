"""Arrays come back as they were written, and what a disk does not take is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.text.arrays import save_array, write_array
from stages.text.token_shards import TokenWriter
from tests.small_disk import small_disk


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
def test_what_the_disk_does_not_take_is_an_error(tmp_path: Path, numbers: int) -> None:
    array = np.arange(numbers, dtype=np.uint64)
    with small_disk(), pytest.raises(OSError):
        save_array(tmp_path / "a.npy", array)
    with small_disk(), pytest.raises(OSError), (tmp_path / "a.u64").open("wb") as file:
        write_array(file, array)


def test_token_shards_are_whole_or_an_error(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, 1000, end_of_text=0)
    with small_disk(), pytest.raises(OSError):
        writer.add("a", list(range(9_000)))  # 18 kB, of which C's buffers would lose the end
        writer.close()
