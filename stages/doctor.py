"""`raylm doctor`: what this machine offers and what may go wrong, before it does."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from cluster import session
from cluster.errors import UserError

VERSIONS = ("ray", "torch", "deepspeed", "transformers", "trl", "datatrove", "openvino-genai")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `level` is "ok", "warn" (works, but) or "bad" (a run will fail)."""

    level: str
    what: str
    found: str
    advice: str = ""


def examine(store: Path) -> Iterator[Finding]:
    """Look at everything a run of the small recipes needs; `store` is where it would write."""
    yield _python()
    yield _packages()
    for name in VERSIONS:
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("bad", name, "not installed", "pip install -e . in the checkout")
    yield _compiler()
    yield _cores()
    yield _memory()
    yield _disk(store)
    yield _shared_memory()
    yield _open_files()
    yield _processes_left()
    yield _kubectl()
    yield Finding("ok", "network", "not needed: every recipe but those with URLs runs offline")


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    advice = "" if good else "expected Python 3.11 or 3.12"
    return Finding("ok" if good else "bad", "python", sys.version.split()[0], advice)


def _packages() -> Finding:
    try:
        session.check_packages()
    except UserError as error:
        return Finding("bad", "imports", "a package is shadowed", str(error))
    return Finding("ok", "imports", f"from {Path(session.__file__).parent.parent}")


def _compiler() -> Finding:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("cc")
    if compiler is None:
        return Finding("warn", "compiler", "none", "apt install build-essential (DeepSpeed's ops)")
    line = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=20, check=False
    ).stdout.split("\n")[0]
    return Finding("ok", "compiler", f"{compiler}: {line}")


def _cores() -> Finding:
    cores = session.cores()
    advice = "" if cores >= 2 else "two cores or more are expected; one will be slow"
    return Finding("ok" if cores >= 2 else "warn", "cores", str(cores), advice)


def _memory() -> Finding:
    free, total = session.free_memory_bytes(), psutil.virtual_memory().total
    found = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < 8 * 2**30:
        return Finding("warn", "memory", found, "recipe tiny wants 8 GiB; nano takes less")
    return Finding("ok", "memory", found)


def _disk(store: Path) -> Finding:
    there = next(path for path in (store, *store.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    if not there.is_dir():
        return Finding("bad", "store", f"{there} is a file", "choose a folder with --store")
    if not os.access(there, os.W_OK):
        return Finding("bad", "store", f"{there} is not writable", "choose one with --store")
    advice = "" if free >= 5 else "5 GiB or more are expected"
    return Finding("ok" if free >= 5 else "warn", "disk", f"{free:.1f} GiB at {there}", advice)


def _shared_memory() -> Finding:
    shared = Path("/dev/shm")
    if not shared.exists():
        return Finding("warn", "shared memory", "no /dev/shm", "Ray will use /tmp, slower")
    free = shutil.disk_usage(shared).free
    if free < session.OBJECT_STORE_BYTES:
        advice = "give the container --shm-size=1g, or Ray will use /tmp, slower"
        return Finding("warn", "shared memory", f"{free / 2**20:.0f} MiB", advice)
    return Finding("ok", "shared memory", f"{free / 2**30:.1f} GiB")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        return Finding("warn", "open files", f"{soft} (hard {hard})", "ulimit -n 65536")
    return Finding("ok", "open files", str(soft))


def _processes_left() -> Finding:
    ended = session.end_stale()
    found = f"ended {len(ended)} of a killed run" if ended else "none of a killed run"
    return Finding("ok", "stale processes", found)


def _kubectl() -> Finding:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return Finding("warn", "kubectl", "none", "only needed to deploy k8s/")
    return Finding("ok", "kubectl", kubectl)
