"""Stores: the same behaviour in a folder and on object stores."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from cluster.errors import UserError
from cluster.storage import ObjectStore, Store, open_store
from tests.cluster.conftest import put


def test_put_get_list_remove(store: Store, tmp_path: Path) -> None:
    assert store.ids() == [] and not store.has("examples-1")
    one, two = put(store, tmp_path, id="examples-1"), put(store, tmp_path, id="examples-2")
    assert store.ids() == [one, two] and store.has(one)
    assert store.get(one).file("a").read_text() == "one"
    assert store.manifest(two) == store.get(two).manifest
    store.remove(one)
    assert store.ids() == [two] and not store.has(one)
    with pytest.raises(UserError, match=r"no artifact 'examples-1' in .*examples-2"):
        store.get(one)


def test_small_files(store: Store) -> None:
    assert store.read("toy/run.json") is None and store.runs() == []
    store.write("toy/run.json", b"{}")
    assert store.read("toy/run.json") == b"{}"
    store.write("toy/index.json", b"{}")
    assert store.runs() == ["toy"]


def test_one_writer_at_a_time(store: Store) -> None:
    refused = pytest.raises(UserError, match="written by first")
    with store.lease("first"), refused, store.lease("second"):
        pass
    with store.lease("third"):
        pass


def test_an_upload_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}/runs", cache=tmp_path / "cache")
    assert isinstance(store, ObjectStore)
    store.fs.pipe_file(f"{store.root}/artifacts/examples-1/a", b"one")
    assert store.ids() == [] and not store.has("examples-1")
    put(store, tmp_path, id="examples-1")
    assert store.ids() == ["examples-1"]


def test_a_damaged_download_is_refused(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/runs"
    store = open_store(url, cache=tmp_path / "cache")
    assert isinstance(store, ObjectStore)
    name = put(store, tmp_path)
    store.fs.pipe_file(f"{store.root}/artifacts/{name}/a", b"eno")
    other = open_store(url, cache=tmp_path / "other")
    with pytest.raises(UserError, match=r"came damaged from .*: a has another sha256"):
        other.get(name)
    assert not (tmp_path / "other" / "artifacts").exists()


def test_an_unknown_protocol_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere://x/y: nowhere:// cannot be used"):
        open_store("nowhere://x/y", cache=tmp_path)


def test_memory_is_fsspecs_own() -> None:
    """The remote tests stand on fsspec's in-memory file system, no double of ours."""
    assert type(fsspec.filesystem("memory")).__module__.startswith("fsspec.")
