"""Leases: one writer, released by death, not inherited by children, taken over when stale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
