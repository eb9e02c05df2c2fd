"""Progress of long work: a live bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

PLAIN_EVERY_S = 15.0
SPEED_OVER_S = 3600.0
"""The time left is told from this much of the past; it takes two steps, however slow they are."""

Report = Callable[[float, float, str], None]
"""Called with (done, total, text); total 0 means unknown."""


class Board:
    """Where stages show how far they are, one at a time."""

    def __init__(self, console: Console, plain_every_s: float = PLAIN_EVERY_S) -> None:
        self.console = console
        self.plain_every_s = plain_every_s

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False)

    @contextmanager
    def stage(self, name: str, position: str = "") -> Iterator[Report]:
        """Show one stage's progress while the block runs."""
        if self.console.is_terminal:
            with self._bar() as progress:
                task = progress.add_task(name, total=None, position=position, text="starting")
                yield lambda done, total, text: _move(progress, task, done, total, text)
        else:
            self.say(f"{position} {name}: starting".strip())
            yield _Plain(self, name).report

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("[dim]{task.fields[position]}"),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("[dim]eta"),
            Remaining(compact=True),
            TextColumn("[dim]{task.fields[text]}"),
            console=self.console,
            transient=True,
            refresh_per_second=4,
            speed_estimate_period=SPEED_OVER_S,
        )


def _move(progress: Progress, task: TaskID, done: float, total: float, text: str) -> None:
    progress.update(task, completed=done, total=total or None, text=text)


class _Plain:
    """Lines for a log file: no more than one in `plain_every_s`, with the time left."""

    def __init__(self, board: Board, name: str) -> None:
        self.board, self.name = board, name
        self.last = time.monotonic()
        self.first: tuple[float, float] | None = None

    def report(self, done: float, total: float, text: str) -> None:
        now = time.monotonic()
        since, begun = self.first = self.first or (now, done)
        if now - self.last < self.board.plain_every_s:
            return
        self.last = now
        share = ""
        if total > 0 and done > 0:
            share = f" {100 * done / total:.0f} %"
        if total > 0 and done > begun:  # what a start costs, later steps do not
            left = (now - since) * max(total - done, 0.0) / (done - begun)
            share += f", about {duration(left)} left"
        self.board.say(f"  {self.name}:{share}{',' if share and text else ''} {text}".rstrip())


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"
