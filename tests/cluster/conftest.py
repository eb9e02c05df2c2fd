"""A store of each kind (Google's on a server of this machine), and a disk that is soon full."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Store, open_store
from tests.cluster.test_artifact import FIELDS, folder_with
from tests.stages.text.servers import GoogleServer

TINY_DISK_BYTES = 256 << 10


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TINY_DISK_BYTES}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["local", "memory", "gs"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Where nothing lies yet: a local folder, or a URL of an object store."""
    if request.param == "local":
        yield str(tmp_path / "place [1]")  # a name that a glob would read
    elif request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}/place"
    else:
        pytest.importorskip("gcsfs", reason="needs gcsfs")
        pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
        with GoogleServer("bucket").running() as server:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
            yield f"gs://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def store(place: str, tmp_path: Path) -> Store:
    return open_store(place, cache=tmp_path / "cache")


def put(store: Store, tmp_path: Path, **fields: Any) -> str:
    out = folder_with(tmp_path / uuid.uuid4().hex, a="one", b="two")
    return store.put(out, {**FIELDS, **fields}).id
