"""Progress on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from cluster.progress import Board, duration


def test_a_log_gets_plain_lines_with_the_time_left() -> None:
    page = io.StringIO()
    board = Board(Console(file=page, width=100), plain_every_s=0)
    with board.stage("base", "[1/2]") as report:
        report(0, 0, "warming up")
        report(50, 100, "loss 3.2")
    lines = page.getvalue().splitlines()
    assert lines[0] == "[1/2] base: starting"
    assert lines[1] == "  base: warming up"
    assert lines[2].startswith("  base: 50 %, about ") and lines[2].endswith("left, loss 3.2")


def test_a_log_is_not_flooded() -> None:
    page = io.StringIO()
    with Board(Console(file=page, width=100)).stage("base") as report:
        for step in range(1000):
            report(step, 1000, "")
    assert len(page.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar() -> None:
    page = io.StringIO()
    board = Board(Console(file=page, force_terminal=True, width=120))
    with board.stage("base", "[1/2]") as report:
        report(50, 100, "loss 3.2")
    assert "base" in page.getvalue() and "50%" in page.getvalue() and "eta" in page.getvalue()


def test_slow_steps_have_a_time_left_too() -> None:
    page, clock = io.StringIO(), [0.0]
    screen = Console(file=page, force_terminal=True, width=120, get_time=lambda: clock[0])
    with Board(screen).stage("base") as report:
        for step in range(1, 4):
            clock[0] += 40.0
            report(step, 10, "loss 3.2")
    assert "04:40" in page.getvalue()  # seven steps of 40 s


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (4.23, 185, 7810)] == ["4.2 s", "3 min 05 s", "2 h 10 min"]
