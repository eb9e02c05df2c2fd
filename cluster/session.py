"""One Ray session for a run: join a cluster, or start one here, and leave nothing behind.

On a laptop: no dashboard, a small object store, more logical CPUs than cores (every actor and
worker asks for one or less), and environment settings that save seconds per launch. Workers' logs
lie under `log_folder()`. Ray's processes die with ours; what a SIGKILL might still leave is ended
at the next start, found by the session it belongs to, never by name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cluster.artifact import write_atomically
from cluster.errors import UserError

PACKAGES = ("cluster", "model", "serve", "stages")
LOGICAL_CPUS = 8
OBJECT_STORE_BYTES = 512 * 2**20
STARTS = 3
MARKER = "RAYLM_SESSION"
CGROUP = Path("/sys/fs/cgroup")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Arrow's own allocator keeps what was freed: workers that read file after file would grow.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_LAPTOP = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_memory_monitor_refresh_ms": "500",
}

KEEPING_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
    ":glibc.malloc.mmap_threshold=268435456:glibc.malloc.trim_threshold=268435456"
}
"""Environment of processes that train or sample: malloc keeps what a step frees, on huge pages, for
every thread (Ray runs a loop in one of its own).

glibc would hand large tensors back to the kernel and fault each of them in again at every step: a
tenth of a small model's time and more.
"""


def cores() -> int:
    """CPU cores this process may use: the smaller of its affinity and the container's quota."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def cores_in_reach() -> int:
    """CPU cores that workers can be spread over: this machine's, or a joined cluster's."""
    if started_here() or not connected():
        return cores()
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def free_memory_bytes() -> int:
    """Memory this process may still take: the machine's, or what the container's limit leaves."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError, KeyError):
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is no limit
        kinds = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used = int((CGROUP / "memory.current").read_text()) - int(kinds["inactive_file"])
        free = min(free, limit - used)
    return max(0, free)


def folder() -> Path:
    """Where sessions of this user keep sockets and logs; short, since socket paths are limited."""
    return Path(f"/tmp/raylm-{os.getuid()}")


def log_folder() -> Path:
    """Where the session's workers write their logs (the newest session's, if none is open here)."""
    ray = sys.modules.get("ray")
    node = ray._private.worker._global_node if ray and ray.is_initialized() else None
    return Path(node.get_session_dir_path() if node else folder() / "session_latest") / "logs"


def prepare_environment(laptop: bool = True) -> dict[str, str]:
    """Set what Ray and the libraries read from the environment; what the user set stays.

    Returns the settings, for the workers of a cluster that was not started from here.
    """
    settings = {**_QUIET, **(_LAPTOP if laptop else {})}
    prefix = Path(sys.prefix)
    if prefix != Path(sys.base_prefix):
        settings["TORCH_EXTENSIONS_DIR"] = str(prefix / "torch_extensions")
        path = os.environ.get("PATH", os.defpath).split(os.pathsep)
        if path[0] != str(prefix / "bin"):
            os.environ["PATH"] = os.pathsep.join([str(prefix / "bin"), *path])
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return {name: os.environ[name] for name in settings}


def check_packages() -> None:
    """Refuse to run when a package of ours would be imported from elsewhere than this one.

    A `model.py` in the folder a command starts from would otherwise shadow ours unseen.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or home not in origin.parents:
            raise UserError(
                f"package {name!r} would be imported from {origin}, but raylm is installed in "
                f"{home}: rename that file or start from another folder"
            )


def connect(cpus: int | None = None, address: str | None = None) -> None:
    """Join the cluster at `address` (or RAY_ADDRESS), else start Ray here. Idempotent.

    `cpus` is the number of logical CPUs of a local session, at least 8 by default so that workers
    and actors which share the cores can all be placed.
    """
    check_packages()
    address = address or os.environ.get("RAY_ADDRESS")
    settings = prepare_environment(laptop=address is None)
    import ray

    if ray.is_initialized():
        return
    if address:
        check_answers(address)
        try:
            ray.init(address=address, runtime_env={"env_vars": settings}, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(address) from error
        return
    end_stale()
    marker = _register()
    os.environ[MARKER] = marker
    # the token that guards the session is on by default; no need to say so at every run
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    on_term = signal.getsignal(signal.SIGTERM)
    _start(cpus or max(LOGICAL_CPUS, cores()), marker)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray puts its own there
    _register(marker, str(log_folder().parent))


def _start(cpus: int, marker: str) -> None:
    """Start Ray here; on a machine too busy for the 30 s that Ray gives a node, again."""
    import ray

    for more in reversed(range(STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=False,
                _temp_dir=str(folder()),
            )
            node: Any = ray._private.worker._global_node
            node.kill_log_monitor(check_alive=False)  # nobody listens
            return
        except Exception as error:  # Ray has no class of its own for this
            if not more or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            for process in _members(marker, ""):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would wait for minutes."""
    host, _, port = address.rpartition("://")[2].partition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address) from error


def _no_cluster(address: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}; check the address (--address, or RAY_ADDRESS in the "
        "environment), or leave it out to run on this machine"
    )


def started_here() -> bool:
    """Whether this process started the Ray session it uses."""
    return MARKER in os.environ


def connected() -> bool:
    """Whether this process is in a session."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def disconnect() -> None:
    """Leave the session; one that was started here ends, with all its processes."""
    if "ray" not in sys.modules:
        return
    import ray

    ray.shutdown()
    marker = os.environ.pop(MARKER, None)
    if marker:
        (folder() / "running" / f"{marker}.json").unlink(missing_ok=True)


def _register(marker: str = "", session: str = "") -> str:
    """Note on disk which process owns a session, so that a later start can tell if it is dead."""
    marker = marker or uuid.uuid4().hex[:12]
    me = psutil.Process()
    note = {"pid": me.pid, "started": me.create_time(), "session": session}
    write_atomically(folder() / "running" / f"{marker}.json", json.dumps(note).encode())
    return marker


def end_stale() -> list[int]:
    """End what is left of our sessions whose owner is dead; their process ids.

    A process belongs to a session by its environment, or by a log of that session it holds open
    (Ray's workers overwrite their environment with their title).
    """
    ended = []
    for note in sorted((folder() / "running").glob("*.json")):
        try:
            owner = json.loads(note.read_text())
            session = str(owner["session"])
            if _alive(int(owner["pid"]), float(owner["started"])):
                continue
        except (ValueError, KeyError, FileNotFoundError):
            continue
        for process in _members(note.stem, session):
            with contextlib.suppress(psutil.Error):
                process.kill()
                ended.append(process.pid)
        note.unlink(missing_ok=True)
    return ended


def _alive(pid: int, started: float) -> bool:
    """Whether the process that was started then still lives (ids are reused)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and (
            process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def _members(marker: str, session: str) -> Iterator[psutil.Process]:
    """Processes of this user that carry a session's marker or hold one of its files open."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid():
                continue
            marked = process.environ().get(MARKER) == marker
            if marked or (session and _holds(process.pid, session)):
                yield process


def _holds(pid: int, session: str) -> bool:
    """Whether a process's standard output or any open file lies in a session's folder."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(session + "/"):
                return True
    return False
