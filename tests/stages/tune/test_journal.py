"""The journal: each step once, whatever was killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from stages.tune import journal as module
from stages.tune.journal import EVENTS, LOG, TENSORBOARD, Journal, Sinks, read_journal


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in range(5):
            journal.write(step, loss=float(step))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 5, "lo')  # a kill in the middle of a line
    with Journal(tmp_path, first_step=3) as journal:
        journal.write(3, loss=30.0)
    assert [(line["step"], line["loss"]) for line in read_journal(tmp_path)] == [
        (0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)
    ]  # fmt: skip
    assert list((tmp_path / TENSORBOARD).iterdir())


def test_only_the_active_rank_writes(tmp_path: Path) -> None:
    with Journal(tmp_path / "other", active=False) as journal:
        journal.write(0, loss=1.0)
    assert not (tmp_path / "other").exists()


class Place:
    """A sink that remembers, and fails or takes its time where it is told to."""

    def __init__(self, fails: str = "", waits: str = "") -> None:
        self.fails, self.waits = fails, waits
        self.done: list[str] = []
        self.release = threading.Event()

    def _do(self, what: str) -> None:
        if what == self.waits:
            self.release.wait(10)
        if what == self.fails:
            raise RuntimeError("the server said no")
        self.done.append(what)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._do("write")

    def rewind(self, step: int) -> None:
        self._do("rewind")

    def close(self) -> None:
        self._do("close")


@pytest.fixture
def slow() -> Iterator[Place]:
    place = Place(waits="close")
    yield place
    place.release.set()


def journal_with(monkeypatch: pytest.MonkeyPatch, folder: Path, **places: Place) -> Journal:
    ways = {name: lambda place=place: place for name, place in places.items()}
    monkeypatch.setattr(module, "openers", lambda *_, **__: ways)
    return Journal(folder)


def test_a_sink_that_does_not_close_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Place
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.3)
    begun, quick = time.monotonic(), Place()
    with journal_with(monkeypatch, tmp_path, slow=slow, quick=quick) as journal:
        journal.write(4, loss=1.0)
    assert time.monotonic() - begun < 5
    assert quick.done == ["write", "close"]
    (event,) = read_journal(tmp_path, EVENTS)
    assert (event["event"], event["sink"], event["step"]) == ("sink left out", "slow", 4)
    assert event["why"] == "closing it: no end after 0 s"


def test_tensorboard_that_does_not_close_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    release = threading.Event()
    monkeypatch.setattr(module, "CLOSE_S", 0.3, raising=False)
    monkeypatch.setattr(SummaryWriter, "close", lambda _: release.wait(4))
    begun = time.monotonic()
    with Journal(tmp_path) as journal:
        journal.rewind(0)
    assert time.monotonic() - begun < 3
    release.set()
    assert [event["why"][:10] for event in read_journal(tmp_path, EVENTS)] == ["going back"]


@pytest.mark.parametrize("what", ["write", "rewind"])
def test_a_sink_that_fails_is_left_out_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    broken, sound = Place(fails=what), Place()
    with journal_with(monkeypatch, tmp_path, broken=broken, sound=sound) as journal:
        for step in range(3):
            journal.write(step, loss=1.0)
        journal.rewind(1)
        journal.write(1, loss=1.0)
    assert sound.done == ["write"] * 3 + ["rewind", "write", "close"]
    (event,) = read_journal(tmp_path, EVENTS)
    assert event["sink"] == "broken" and "RuntimeError: the server said no" in event["why"]
    assert [line["step"] for line in read_journal(tmp_path)] == [0, 1]


@pytest.mark.parametrize("fresh", [True, False])
def test_only_a_run_that_begins_is_refused_what_its_user_can_put_right(fresh: bool) -> None:
    said: list[tuple[str, str]] = []
    sound = Place()

    def wrong() -> Any:
        raise UserError("give a free port")

    def unreachable() -> Any:
        raise RuntimeError("no network")

    ways = {"unreachable": unreachable, "sound": lambda: sound, "wrong": wrong}
    if fresh:
        with pytest.raises(UserError, match="give a free port"):
            Sinks(ways, lambda *told: said.append(told), fresh=True)
        assert sound.done == ["close"]
    else:
        opened = Sinks(ways, lambda *told: said.append(told), fresh=False)
        opened.write(0, {})
        assert sound.done == ["write"]
    assert [name for name, _ in said] == ["unreachable", *([] if fresh else ["wrong"])]
    assert said[0][1] == "opening it: RuntimeError: no network"
