"""The Ray session: placed, quiet, checked, and gone when its owner is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import session
from cluster.errors import UserError

OWNER = """
import time, ray
from cluster import session
session.connect()
@ray.remote
class Busy:
    def pid(self):
        import os
        return os.getpid()
    def work(self):
        time.sleep(100)
busy = Busy.remote()
pid = ray.get(busy.pid.remote())
busy.work.remote()
print("pids", pid, flush=True)
time.sleep(100)
"""


def test_cores_are_those_we_may_use() -> None:
    assert 1 <= session.cores() <= (os.cpu_count() or 1)


def test_a_containers_limit_counts_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CGROUP", tmp_path)
    free = session.free_memory_bytes()
    assert abs(free - psutil.virtual_memory().available) < 2**30
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 1000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert session.free_memory_bytes() > 100_000_000
    (tmp_path / "memory.max").write_text("5000000\n")
    assert session.free_memory_bytes() == 3_000_000


def test_a_users_own_module_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("x = 1\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cluster import session\nsession.check_packages()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert f"package 'model' would be imported from {tmp_path / 'model.py'}" in done.stderr
    session.check_packages()


def test_the_environment_is_prepared_and_the_users_settings_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin", "HF_HUB_OFFLINE": "0"})
    session.prepare_environment()
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    if sys.prefix != sys.base_prefix:
        assert os.environ["PATH"].split(":")[0] == str(Path(sys.prefix) / "bin")
        assert os.environ["TORCH_EXTENSIONS_DIR"].startswith(sys.prefix)


def test_no_cluster_at_an_address_is_a_clear_sentence(tmp_path: Path) -> None:
    code = "from cluster import session\nsession.connect(address='127.0.0.1:1')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert f"{UserError.__name__}: no Ray cluster answers at 127.0.0.1:1" in done.stderr


@pytest.mark.dist
def test_connect_places_more_workers_than_cores(ray_session: None) -> None:
    import ray

    session.connect()
    assert ray.cluster_resources()["CPU"] >= 8
    assert session.started_here() and session.log_folder().is_dir()


@pytest.mark.chaos
def test_nothing_is_left_of_a_killed_owner() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        line = next(line for line in owner.stdout if line.startswith("pids"))
        tree = psutil.Process(owner.pid).children(recursive=True)
        assert int(line.split()[1]) in {process.pid for process in tree}
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    session.end_stale()
    _, alive = psutil.wait_procs(tree, timeout=10)
    time.sleep(0.1)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
