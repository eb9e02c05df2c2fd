"""Slow and stuck ranks: named and ended in time, and no one wrongly."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.watch import HANG_EXIT, Stragglers, Watch
from tests.stages.test_cli import ROOT


def _process(board: Path, rank: int, body: str) -> subprocess.Popen[str]:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom cluster.watch import Watch\n"
        f"watch = Watch(Path({str(board)!r}), {rank}, 2, hang_s=1.0, start_s=2.0)\n"
        f"with watch:\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def test_a_hang_ends_every_rank_and_says_where_each_was(tmp_path: Path) -> None:
    working = """
    def reading():
        time.sleep(1000)
    watch.beat("a"); watch.beat("a"); {more}
    reading()
    """
    ranks = [
        _process(tmp_path, 0, working.format(more="watch.beat('b'); watch.beat('step 2')")),
        _process(tmp_path, 1, working.format(more="watch.beat('step 2')")),
    ]
    began = time.monotonic()
    codes = [rank.wait(60) for rank in ranks]
    assert codes == [HANG_EXIT, HANG_EXIT] and time.monotonic() - began < 30
    said = (tmp_path / "hang.txt").read_text()
    assert "rank 0" in said and "is at reading" in said and "during step 2" in said
    assert "rank 1" in said and "and is behind the others" in said
    assert said.count("in reading") == 2, "a stack of each"


def test_a_rank_without_a_sign_of_life_is_told(tmp_path: Path) -> None:
    alone = _process(tmp_path, 0, "watch.beat('a'); watch.beat('a'); time.sleep(1000)")
    assert alone.wait(60) == HANG_EXIT
    assert "rank 1 gives no sign of life" in (tmp_path / "hang.txt").read_text()


def test_a_thread_that_holds_the_interpreter_is_ended_too(tmp_path: Path) -> None:
    body = """
    watch.beat("a"); watch.beat("a"); time.sleep(0.5)
    import ctypes
    ctypes.PyDLL(None).sleep(1000)  # in C, with the lock held: no Python thread runs
    """
    rank = _process(tmp_path, 0, body)
    assert rank.wait(60) != 0
    assert "line" in (tmp_path / "locked-0.txt").read_text()


def test_working_ranks_are_left_alone(tmp_path: Path) -> None:
    body = """
    for turn in range(8):
        watch.beat("working")
        time.sleep(0.2 * turn)   # every pause is longer than the one before, up to the limit
    """
    assert _process(tmp_path, 0, body).wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_limit_grows_with_the_runs_own_pauses(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 0, 1, hang_s=0.001, start_s=5.0)
    assert watch.limit_s() == 5.0
    for _ in range(3):
        watch.beat("working")
        time.sleep(0.05)
    watch.beat("working")
    assert 0.15 <= watch.limit_s() < 5.0


def test_what_is_done_for_the_first_time_may_take_long(tmp_path: Path) -> None:
    watch = Watch(tmp_path, 0, 1, hang_s=1.0, start_s=5.0)
    limits = []
    for doing in ("reading", "forward", "reading", "forward", "evaluating", "reading"):
        watch.beat(doing)
        limits.append(watch.limit_s())
    assert limits == [5.0, 5.0, 1.0, 1.0, 5.0, 1.0]
    watch.beat("going back", long=True)
    watch.beat("reading")
    watch.beat("going back", long=True)
    assert watch.limit_s() == 5.0, "loading always does"


def test_what_is_slow_by_nature_is_left_alone(tmp_path: Path) -> None:
    body = """
    for turn in range(4):
        watch.beat("forward")
        time.sleep(1.4)   # of hang_s 1.0
        watch.beat("reading")
    """
    assert _process(tmp_path, 0, body).wait(60) == 0


def _limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: list[tuple[float, int]]
) -> list[float]:
    """The limits of an activity that takes these seconds, on data of these shapes, with others in
    between.
    """
    now = [0.0]
    monkeypatch.setattr("cluster.watch.time.monotonic", lambda: now[0])
    watch, limits = Watch(tmp_path, 0, 1), []
    for seconds, shape in took:
        watch.beat("forward", shape=shape)
        limits.append(watch.limit_s())
        now[0] += seconds
        watch.beat("reading")
        now[0] += 1.0
    return limits


def test_how_long_an_activity_may_take_depends_on_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = [(300.0, 1), (1.0, 1), (1.0, 1), (1.0, 1)]
    assert _limits(tmp_path, monkeypatch, compiled) == [600, 600, 25, 25]
    slow = [(40.0, 1), (40.0, 1), (50.0, 1), (40.0, 1), (40.0, 1)]
    assert _limits(tmp_path, monkeypatch, slow) == [600, 120, 120, 150, 150]
    quick = [(1.0, 1), (1.0, 1), (1.0, 1)]
    assert _limits(tmp_path, monkeypatch, quick) == [600, 25, 25]
    reshaped = [(1.0, 1), (1.0, 1), (200.0, 2), (1.0, 1), (1.0, 2), (1.0, 2)]
    assert _limits(tmp_path, monkeypatch, reshaped) == [600, 25, 600, 25, 600, 25]


def test_the_loop_and_threads_from_outside_python_are_told(tmp_path: Path) -> None:
    body = """
    import _thread, threading

    def in_a_hook():
        time.sleep(1000)

    def loop():
        _thread.start_new_thread(in_a_hook, ())   # as one of C++: threading does not know it
        watch.beat("a"); watch.beat("a"); watch.beat("step 2")
        in_a_collective()

    def in_a_collective():
        time.sleep(1000)

    threading.Thread(target=loop, name="the loop").start()
    time.sleep(1000)
    """
    assert _process(tmp_path, 0, body).wait(60) == HANG_EXIT
    said = (tmp_path / "hang.txt").read_text()
    assert "is at in_a_collective" in said and "during step 2" in said
    assert "in in_a_hook" in said and "not one of Python's" in said
    assert said.index("thread the loop:") < said.index("thread MainThread:")


def _times(draw: np.random.Generator, world: int, jitter: float) -> list[float]:
    times = 0.4 * np.exp(draw.normal(0, jitter, world))
    times += (draw.random(world) < 0.01) * draw.uniform(0, 3.0, world)  # a stall now and then
    return list(times.tolist())


@pytest.mark.parametrize(("world", "jitter"), [(2, 0.02), (2, 0.3), (8, 0.1), (8, 0.4)])
def test_ten_thousand_jittery_steps_name_nobody(world: int, jitter: float) -> None:
    draw = np.random.default_rng(world)
    stragglers = Stragglers(world)
    named = [stragglers.observe(_times(draw, world, jitter)) for _ in range(10_000)]
    assert not any(named)


@pytest.mark.parametrize("warm", [2, 500])
def test_a_slow_rank_is_named_in_its_third_step_and_once(warm: int) -> None:
    draw = np.random.default_rng(1)
    stragglers = Stragglers(4)
    for _ in range(warm):
        assert stragglers.observe(_times(draw, 4, 0.0)[:4]) == {} or warm > 2
    found = []
    for _ in range(20):
        times = list((0.4 * np.exp(draw.normal(0, 0.03, 4))).tolist())
        times[2] *= 1.8
        found.append(stragglers.observe(times))
    assert [list(names) for names in found[:3]] == [[], [], [2]]
    assert found[2][2] == pytest.approx(1.8, rel=0.2)
    assert not any(found[3:])


def test_milliseconds_are_not_worth_a_name() -> None:
    stragglers = Stragglers(2)
    assert not any(stragglers.observe([0.002, 0.006]) for _ in range(50))


def test_ranks_are_compared_with_those_that_do_the_same_work() -> None:
    """The second stage of a pipeline always takes twice the first's time; rank 1 becomes slow."""
    stragglers = Stragglers(4, groups=2)
    assert not any(stragglers.observe([0.4, 0.4, 0.8, 0.8]) for _ in range(20))
    found = [stragglers.observe([0.4, 1.0, 0.8, 0.8]) for _ in range(3)]
    assert found == [{}, {}, {1: pytest.approx(2.5)}]
    alone = Stragglers(2, groups=2)
    assert not any(alone.observe([0.4, 4.0]) for _ in range(20))
