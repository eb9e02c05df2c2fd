"""Jobs on a real Ray head with its dashboard and token authentication; what goes along."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import jobs
from cluster.errors import UserError

TOKEN = "0123456789abcdef0123456789abcdef"
RECIPE = """
name: {name}
store: {store}
stages:
  problems: {{stage: examples, what: problems, train_problems: 30, eval_problems: 12}}
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """`ray start --head` in its own folder, on its own ports; the dashboard's address."""
    dashboard, gcs, agent, agent_grpc, metrics, client = free_ports(6)
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="rj-", ignore_cleanup_errors=True) as folder:
        command = [
            "ray", "start", "--head", "--block", f"--port={gcs}", "--include-dashboard=true",
            f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}",
            f"--temp-dir={folder}", "--num-cpus=4", "--object-store-memory=100000000",
            f"--ray-client-server-port={client}",
        ]  # fmt: skip
        with (Path(folder) / "out").open("wb") as out:
            process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        address = f"http://127.0.0.1:{dashboard}"
        try:
            _await(address, process, Path(folder) / "out")
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await(address: str, process: subprocess.Popen, out: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            request = urllib.request.Request(
                f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"}
            )
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"ray start did not come up: {out.read_text()[-3000:]}")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.mark.dist
def test_a_recipe_runs_as_a_job(
    head: str, token: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.format(name="small", store="nowhere"))
    code = jobs.submit(str(recipe), head, ["--set", f"store={store}"], follow=True)
    shown = capfd.readouterr()
    assert code == 0, shown
    assert "problems" in shown.out, "the log was followed"
    assert "SUCCEEDED" in shown.err
    assert list(store.glob("artifacts/*/manifest.json"))
    assert not list(tmp_path.glob("nowhere*"))


@pytest.mark.dist
def test_a_users_mistake_keeps_its_exit_code(
    head: str, token: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("name: wrong\nstages:\n  a: {stage: pretrian}\n")
    assert jobs.submit(str(recipe), head, [], follow=True) == 2
    assert "pretrain" in capfd.readouterr().out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard also where the tests are a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.dist
def test_status_logs_stop_and_leaving(
    head: str,
    token: None,
    interruptible: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    client = jobs._connect(head)
    job = client.submit_job(entrypoint="echo began; sleep 120")
    deadline = time.monotonic() + 60
    while "began" not in jobs.logs(head, job) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert jobs.status(head, job).startswith(f"{job}: RUNNING")
    interrupt = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    assert jobs.follow_job(client, job, head) == jobs.INTERRUPTED
    assert "the job runs on" in capfd.readouterr().err
    assert jobs.status(head, job).startswith(f"{job}: RUNNING")
    assert jobs.stop(head, job) == f"{job}: stopping"
    while "RUNNING" in jobs.status(head, job) and time.monotonic() < deadline + 60:
        time.sleep(0.3)
    assert jobs.status(head, job).startswith(f"{job}: STOPPED")
    with pytest.raises(UserError, match=rf"there is no job 'nothing' at .*{job}"):
        jobs.status(head, "nothing")


@pytest.mark.dist
def test_a_wrong_token_is_told(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 32)
    with pytest.raises(UserError, match="refuses this token"):
        jobs.status(head, "any")


def test_an_address_that_does_not_answer_or_is_none() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at http://127.0.0.1:9"):
        jobs.submit("tiny", "http://127.0.0.1:9", [])
    with pytest.raises(UserError, match="expected its dashboard's"):
        jobs.status("ray://head:10001", "job")


def test_only_the_recipe_goes_along(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    (home / "secret.txt").write_text("x")
    (home / "base.yaml").write_text("extends: tiny\n")
    (home / "mine.yaml").write_text("extends: base.yaml\nseed: 3\n")
    assert jobs._pack(str(home / "mine.yaml"), folder) == "mine.yaml"
    assert sorted(path.name for path in folder.iterdir()) == ["base.yaml", "mine.yaml"]
    assert jobs._pack("tiny", folder) == "tiny"
    with pytest.raises(UserError, match="there is no recipe file"):
        jobs._pack(str(home / "other.yaml"), folder)
    (home / "far.yaml").write_text("extends: ../x/base.yaml\n")
    with pytest.raises(UserError, match="in its own folder"):
        jobs._pack(str(home / "far.yaml"), folder)


def test_the_token_comes_from_rays_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert jobs.auth_headers() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("abc\n")
    assert jobs.auth_headers() == {"Authorization": "Bearer abc"}
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="holds no token"):
        jobs.auth_headers()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "def")
    assert jobs.auth_headers() == {"Authorization": "Bearer def"}
