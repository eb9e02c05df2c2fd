"""Leases: one writer, released by death, not inherited by children, taken over when stale."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from cluster.errors import UserError
from cluster.lease import file_lease, heartbeat_lease

HOLD = """
import subprocess, sys, time
from pathlib import Path
from cluster.lease import file_lease
with file_lease(Path(sys.argv[1]), "the holder"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_the_kernel_releases_a_killed_writers_lease(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            sentence = rf"written by the holder \(process {holder.pid} on .*one run at a time"
            with pytest.raises(UserError, match=sentence), file_lease(tmp_path, "us"):
                pass
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # its child lives on and must not keep the lease
            with file_lease(tmp_path, "us"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_does_not_keep_the_lease(tmp_path: Path) -> None:
    here, there = os.pipe()
    with file_lease(tmp_path, "us"):
        child = os.fork()
        if child == 0:
            os.write(there, b"x")
            time.sleep(60)
            os._exit(0)
    try:
        os.read(here, 1)  # it is up
        with file_lease(tmp_path, "again"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_stale_heartbeat_is_taken_over(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    path = f"/{tmp_path.name}/.lease"
    dead = {"what": "a dead run", "token": "x", "pid": 1, "host": "h", "since": "then"}
    fs.pipe_file(path, json.dumps({**dead, "beat": time.time()}).encode())
    with pytest.raises(UserError, match="written by a dead run"), heartbeat_lease(fs, path, "us"):
        pass
    fs.pipe_file(path, json.dumps({**dead, "beat": time.time() - 61}).encode())
    with heartbeat_lease(fs, path, "us", renew_s=0.05):
        first = json.loads(fs.cat_file(path))["beat"]
        deadline = time.monotonic() + 5
        while json.loads(fs.cat_file(path))["beat"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert json.loads(fs.cat_file(path))["beat"] > first, "the lease is renewed"
    assert not fs.exists(path)


class Outage:
    """A file system in memory that can be made to fail, or to hang, when it is written."""

    def __init__(self, path: str) -> None:
        self.fs, self.path = fsspec.filesystem("memory"), path
        self.fails, self.hangs_s = False, 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self.fs, name)

    def pipe_file(self, path: str, data: bytes) -> None:
        time.sleep(self.hangs_s)
        if self.fails:
            raise RuntimeError("503: slow down")
        self.fs.pipe_file(path, data)

    def note(self) -> dict[str, object]:
        return dict(json.loads(self.fs.cat_file(self.path)))


@pytest.fixture
def outage(tmp_path: Path) -> Outage:
    return Outage(f"/{tmp_path.name}/.lease")


def test_a_short_outage_does_not_cost_the_lease(outage: Outage) -> None:
    with heartbeat_lease(outage, outage.path, "us", renew_s=0.05, stale_s=10.0):
        outage.fails = True
        time.sleep(0.5)
        before = outage.note()["beat"]
        outage.fails = False
        deadline = time.monotonic() + 5
        while outage.note()["beat"] == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert outage.note()["beat"] != before, "renewed again"
    assert not outage.exists(outage.path)


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_writer_that_cannot_renew_stops_before_others_may_write(outage: Outage, how: str) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    lost = r"lost its right to write to /.*: it could not be renewed for 1 s.*the same command"
    with (
        pytest.raises(UserError, match=lost),
        heartbeat_lease(outage, outage.path, "us", renew_s=0.2, stale_s=1.2),
    ):
        outage.fails, outage.hangs_s = how == "fails", 5.0 * (how == "hangs")
        began = time.monotonic()
        time.sleep(60)  # as long as a stage
    assert time.monotonic() - began < 20
    assert signal.getsignal(signal.SIGUSR2) is before


def test_a_writer_whose_lease_was_taken_over_stops(outage: Outage) -> None:
    theirs = {"what": "their run", "token": "x", "pid": 7, "host": "h", "since": "then"}
    lost = r"their run \(process 7 on h, since then\) took it over"
    with (
        pytest.raises(UserError, match=lost),
        heartbeat_lease(outage, outage.path, "us", renew_s=0.1),
    ):
        outage.fs.pipe_file(outage.path, json.dumps({**theirs, "beat": time.time()}).encode())
        time.sleep(60)
    assert outage.note()["token"] == "x", "theirs is left alone"


def test_an_interrupt_that_comes_to_nothing_is_sent_again(outage: Outage) -> None:
    """The first may arrive where Python lets no exception out: in a finalizer."""

    def swallowed() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(20)

    begun = time.monotonic()
    with (
        pytest.raises(UserError, match="has lost its right"),
        heartbeat_lease(outage, outage.path, "us", renew_s=0.2, stale_s=1.2),
    ):
        outage.fails = True
        swallowed()
        time.sleep(20)
    assert time.monotonic() - begun < 15


@pytest.mark.dist
def test_a_wait_for_workers_is_ended_too(outage: Outage, ray_session: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def train() -> None:
        time.sleep(40)

    began = time.monotonic()
    with (
        pytest.raises(UserError, match="could not be renewed"),
        heartbeat_lease(outage, outage.path, "us", renew_s=0.2, stale_s=1.0),
    ):
        outage.fails = True
        ray.get(train.remote())
    assert time.monotonic() - began < 30


def test_outside_the_main_thread_it_is_told_at_the_end(outage: Outage) -> None:
    told: list[str] = []

    def work() -> None:
        try:
            with heartbeat_lease(outage, outage.path, "us", renew_s=0.1, stale_s=0.5):
                outage.fails = True
                time.sleep(1.5)
        except UserError as error:
            told.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert len(told) == 1 and "503: slow down" in told[0]
