"""What units of work took, each noted beside its result: a run that was killed and taken up again
still knows what all of it cost, whoever did it.

CPU-seconds are the worker's process's own. They depend little on who else uses the machine, so they
are what a plan scales; the share of the time that workers were busy says what is lost in waiting.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOOK = "took.json"


class Clock:
    """Started with a unit of work."""

    def __init__(self) -> None:
        self._cpu, self._begun = time.process_time(), time.time()

    def write(self, path: Path, **amounts: int) -> None:
        """Note what the unit took, and amounts such as bytes; before its result is committed."""
        cpu_seconds = time.process_time() - self._cpu
        note = {"cpu_seconds": cpu_seconds, "begun": self._begun, "ended": time.time(), **amounts}
        path.write_text(json.dumps(note), encoding="utf-8")


def total(notes: Iterable[Path], workers: int, since: float) -> dict[str, Any]:
    """Units, CPU-seconds and amounts of all notes that are there. Of the units begun after `since`:
    `seconds` from the first one's begin to the last one's end, and of these seconds of `workers`
    workers (0: this process alone) the `busy_share` that CPUs worked and the `held_share` that a
    unit was in hand. What is not busy but held is waiting (for disks, the network, other
    processes); what is not held is idle, for lack of units. None if none was begun.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in notes if path.exists()]
    sums: Counter[str] = Counter()
    for note in found:
        sums.update({name: note[name] for name in note if name not in ("begun", "ended")})
    mine = [note for note in found if note["begun"] >= since]
    seconds = busy = held = None
    if mine:
        seconds = max(note["ended"] for note in mine) - min(note["begun"] for note in mine)
        in_all = max(seconds * max(workers, 1), 1e-9)
        busy = sum(note["cpu_seconds"] for note in mine) / in_all
        held = sum(note["ended"] - note["begun"] for note in mine) / in_all
    return {
        "units": len(found),
        **{name: round(value, 3) for name, value in sorted(sums.items())},
        "seconds": None if seconds is None else round(seconds, 3),
        "busy_share": None if busy is None else round(busy, 3),
        "held_share": None if held is None else round(held, 3),
    }
