"""Slow and stuck ranks of a worker group: named, and turned into errors.

A rank that hangs in a collective, or keeps the others waiting in one, raises nothing: its thread
sits in C++. So each rank beats as it works, and a thread of its own ends the process when
the beats stop, after leaving every thread's stack where the driver finds it. A thread that cannot
even run (something holds the interpreter's lock) is backed by faulthandler's timer, which needs
no lock.

A slow rank makes all ranks' steps slow; only the time of its own work, outside collectives,
gives it away.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

HANG_S = 25.0
"""Silence that counts as a hang; with what follows it, half a minute."""
START_S = 600.0
"""The same for what takes its time: whatever is done for the first time (it imports, compiles,
allocates), and loading."""
GAP_FACTOR = 3.0
"""What took p seconds at most so far is not called hanging before this times p."""
OTHERS_S = 3.0
"""How long a stuck rank waits for the other ranks' stacks."""
HANG_EXIT = 70
"""Exit status of a process that its watch ended."""

SLOW_RATIO = 1.5
SLOW_STEPS = 3
SLOW_EXCESS_S = 0.05
NOISE_FACTOR = 6.0
NOISE_STEPS = 64
FIRST_STEPS = 2


class Activity(NamedTuple):
    """What a rank does, and the shape of what it does it to."""

    name: str
    shape: Hashable = None


class Watch:
    """Ends this process when `beat` has not been called for `hang_s`; use as a context.

    Every rank leaves `stuck-<rank>.json` in `board` (a folder all ranks and the driver see), and
    one of them `hang.txt`: who hangs where, and the stacks.
    """

    def __init__(
        self,
        board: Path,
        rank: int,
        world: int,
        hang_s: float = HANG_S,
        start_s: float = START_S,
    ) -> None:
        self.board, self.rank, self.world = board, rank, world
        self.hang_s, self.start_s = hang_s, start_s
        self._stop = threading.Event()
        self._beats = 0
        self._doing, self._long = Activity("starting"), False
        self._took: dict[Activity, list[float]] = {}
        self._longest = 0.0
        self._last = time.monotonic()
        self._thread_id = threading.get_ident()

    def beat(self, doing: str, long: bool = False, shape: Hashable = None) -> None:
        """Say that this rank lives and what it does next, and whether that is always `long`. Cheap:
        call it for every micro-batch.

        Another `shape` of what is worked on makes it another thing, done for the first time once
        more: it may have to be compiled for it.
        """
        now = time.monotonic()
        if not self._long:
            took = self._took.setdefault(self._doing, [])
            if len(took) < 2:
                took.append(now - self._last)
            else:
                took[1] = max(took[1], now - self._last)
            self._longest = max(self._longest, *took[1:], 0.0)
        self._beats += 1
        self._thread_id = threading.get_ident()
        self._last, self._doing, self._long = now, Activity(doing, shape), long

    def limit_s(self) -> float:
        """The silence that counts as a hang now.

        What an activity took the first time says little about the second, since it may have
        compiled, yet it may be slow by nature; so the first time is held against the second alone.
        Where other things have long pauses, so may this one: all share a machine and a store.
        """
        took = self._took.get(self._doing, ())
        if self._long or not took:
            return max(self.start_s, self.hang_s)
        own = min(self.start_s, GAP_FACTOR * took[-1])
        return max(self.hang_s, own, GAP_FACTOR * self._longest)

    def __enter__(self) -> Watch:
        self.board.mkdir(parents=True, exist_ok=True)
        self._file(self.rank).unlink(missing_ok=True)
        self._last, self._thread_id = time.monotonic(), threading.get_ident()
        self._traces = (self.board / f"locked-{self.rank}.txt").open("w", encoding="utf-8")
        self._thread = threading.Thread(target=self._guard, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._traces.close()
        Path(self._traces.name).unlink(missing_ok=True)

    def _guard(self) -> None:
        tick = min(1.0, self.hang_s / 10)
        beats, silent, before = self._beats, 0.0, time.monotonic()
        while not self._stop.wait(tick):
            limit = self.limit_s()
            faulthandler.dump_traceback_later(limit + OTHERS_S, exit=True, file=self._traces)
            now = time.monotonic()
            # a machine too busy to run this thread, or asleep, was not to be beaten on either
            silent = 0.0 if beats != self._beats else silent + min(now - before, 2 * tick)
            beats, before = self._beats, now
            if silent > limit:
                self._end(silent)

    def _end(self, silent: float) -> None:
        """Leave the stacks, tell who hangs where, and end the process."""
        note = {
            "rank": self.rank, "host": socket.gethostname(), "pid": os.getpid(),
            "beats": self._beats, "doing": self._doing.name, "silent_s": round(silent, 1),
            **_stacks(self._thread_id),
        }  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk must not keep it alive
            _write(self._file(self.rank), json.dumps(note))
        deadline = time.monotonic() + OTHERS_S
        while len(notes := self._notes()) < self.world and time.monotonic() < deadline:
            time.sleep(0.05)
        if notes and min(notes) == self.rank:
            text = describe_hang(notes, self.world)
            with contextlib.suppress(OSError):
                _write(self.board / "hang.txt", text)
            print(text, file=sys.stderr, flush=True)
        else:
            time.sleep(0.5)  # the one who tells needs this rank's note, and peers die of our exit
        os._exit(HANG_EXIT)

    def _file(self, rank: int) -> Path:
        return self.board / f"stuck-{rank}.json"

    def _notes(self) -> dict[int, dict[str, Any]]:
        notes = {}
        for rank in range(self.world):
            try:
                notes[rank] = json.loads(self._file(rank).read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                continue
        return notes


def describe_hang(notes: dict[int, dict[str, Any]], world: int) -> str:
    """A sentence on who hangs where, then every rank's stack."""
    behind = min(note["beats"] for note in notes.values())
    ahead = max(note["beats"] for note in notes.values())
    lines = [f"no progress for {max(n['silent_s'] for n in notes.values()):.0f} s:"]
    for rank in range(world):
        if rank not in notes:
            lines.append(f"  rank {rank} gives no sign of life: dead, stopped, or cut off")
            continue
        note = notes[rank]
        late = " and is behind the others" if note["beats"] == behind < ahead else ""
        lines.append(
            f"  rank {rank} ({note['host']}, process {note['pid']}) is at {note['where']}, "
            f"during {note['doing']}{late}"
        )
    for rank, note in notes.items():
        lines += [f"\nrank {rank}:", note["stacks"].rstrip()]
    return "\n".join(lines) + "\n"


def _stacks(working: int) -> dict[str, str]:
    """Where the `working` thread is, and the stacks of all threads but the watch's own.

    Of threads that Python did not start too: autograd computes the gradients of a GPU in one, and
    a collective of theirs may be what hangs.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    text, where = [], "nowhere"
    for ident, frame in sorted(frames.items(), key=lambda item: item[0] != working):
        if ident == working:
            code = frame.f_code
            where = f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"
        name = names.get(ident, f"{ident}, not one of Python's")
        text.append(f"thread {name}:\n" + "".join(traceback.format_stack(frame)))
    return {"where": where, "stacks": "\n".join(text)}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


class Stragglers:
    """Names the ranks whose own work takes longer than the others', from times all ranks share.

    A rank is slow when for three steps in a row its work took `SLOW_RATIO` times the median of the
    others', and more seconds beyond it than `SLOW_EXCESS_S` and than the run's own noise (the
    robust deviation of that difference). Each is named once, and again after it had recovered.
    Ranks fall into `groups` of neighbours with equal work (a pipeline's stages); who is alone in
    one has nobody to be compared with.
    """

    def __init__(self, world: int, ratio: float = SLOW_RATIO, groups: int = 1) -> None:
        self.ratio = ratio
        self._size = world // groups
        self.named: set[int] = set()
        self._recent = [deque[bool](maxlen=SLOW_STEPS) for _ in range(world)]
        self._noise = deque[float](maxlen=NOISE_STEPS * max(1, world))
        self._steps = 0

    def observe(self, seconds: Sequence[float]) -> dict[int, float]:
        """Take one step's work seconds by rank; the newly named ranks and how many times the
        others' time they took.
        """
        self._steps += 1
        if self._steps <= FIRST_STEPS or self._size < 2:
            return {}
        threshold_s = max(SLOW_EXCESS_S, NOISE_FACTOR * self._deviation_s())
        found = {}
        for rank, own in enumerate(seconds):
            first = rank - rank % self._size
            group = seconds[first : first + self._size]
            others = statistics.median([*group[: rank - first], *group[rank - first + 1 :]])
            excess_s = own - others
            slow = own > self.ratio * others and excess_s > threshold_s
            recent = self._recent[rank]
            recent.append(slow)
            if not slow:
                self._noise.append(abs(excess_s))
            if not any(recent):
                self.named.discard(rank)
            elif len(recent) == SLOW_STEPS and all(recent) and rank not in self.named:
                self.named.add(rank)
                found[rank] = own / max(others, 1e-9)
        return found

    def _deviation_s(self) -> float:
        """Standard deviation of a rank's excess over the others, in seconds, from its median."""
        if not self._noise:
            return 0.0
        return 1.4826 * statistics.median(self._noise)
