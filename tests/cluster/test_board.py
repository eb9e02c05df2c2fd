"""The notes of a run: when it is given up, and what is left to write when the disk is full."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from cluster.board import Board, WorkerError
from cluster.errors import UserError, disk_is_full


@pytest.fixture
def board(tmp_path: Path) -> Board:
    made = Board(tmp_path / "board")
    made.clear()
    return made


def _reach(board: Board, done: int) -> None:
    board.write("report.json", {"metrics": {}, "done": done, "total": 200, "text": ""})


def _starts(board: Board, draw: random.Random) -> int:
    """How many groups start until the run is given up, each dying at step 100, its last report from
    a little before.
    """
    for start in range(1, 1000):
        try:
            board.count_start(3, world=2)
        except WorkerError:
            return start
        _reach(board, draw.randint(81, 100))
    raise AssertionError("never given up")


def test_a_fault_at_one_step_is_given_up_wherever_the_last_reports_were(tmp_path: Path) -> None:
    for seed in range(40):
        board = Board(tmp_path / str(seed))
        board.clear()
        assert 5 <= _starts(board, random.Random(seed)) <= 25, seed


def test_progress_is_what_no_group_before_had_reached(board: Board) -> None:
    for done in (80, 70, 79, 80):
        board.count_start(3)
        _reach(board, done)
    board.count_start(3)
    sentence = r"failed 4 times without getting further than 80 of 200; the last time: they were"
    with pytest.raises(WorkerError, match=sentence):
        board.count_start(3)
    _reach(board, 81)
    board.count_start(3)


def test_nodes_that_come_one_by_one_are_no_failures(board: Board) -> None:
    for world in range(1, 20):
        board.count_start(3, world)


def test_a_group_that_goes_to_and_fro_between_sizes_is_given_up(board: Board) -> None:
    for world in (4, 3, 4, 3, 4):
        board.count_start(3, world)
    with pytest.raises(WorkerError, match="failed 4 times"):
        board.count_start(3, 3)


def test_whether_a_group_took_over_and_has_done_nothing_yet(board: Board) -> None:
    assert not board.took_over()
    board.count_start(3)
    assert not board.took_over(), "the first group"
    _reach(board, 10)
    board.count_start(3)
    assert board.took_over()
    _reach(board, 6)
    assert not board.took_over(), "it went on from before, and has done something"


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        size = 64 << 10
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_the_error_that_ends_a_run_finds_space_on_a_full_disk(tiny_disk: Path) -> None:
    board = Board(tiny_disk / "board")
    board.clear()
    board.count_start(3)
    fill(tiny_disk)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        board.count_start(3)
    _check_error(board, caught.value)


def test_the_same_where_every_new_file_is_refused(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        board.count_start(3)
    _check_error(board, caught.value)


def _check_error(board: Board, error: Exception) -> None:
    board.write_error(error)
    assert board.has_error()
    board.write_error(UserError("another rank's, later"))
    with pytest.raises(WorkerError) as told:
        board.raise_error()
    assert disk_is_full(told.value) and "Traceback" in str(told.value)


def test_a_long_error_fits_in_what_is_spared(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    size = (board.folder / "spare").stat().st_size
    board.write_error(UserError("no space " + "\U0001f4a5" * 100_000))
    assert (board.folder / "error.json").stat().st_size == size
    with pytest.raises(UserError, match=r"^no space "):
        board.raise_error()
