"""Folders on a file system and on object stores behave alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.folder import Folder


@pytest.fixture
def folder(place: str, tmp_path: Path) -> Folder:
    return Folder(place, tmp_path / "staged")


def test_files_are_written_found_fetched_and_removed(folder: Folder, tmp_path: Path) -> None:
    assert folder.names("*/*") == [] and folder.read("a/state") is None
    part = folder / "a"
    with part.writing("shard") as path:
        path.write_bytes(b"12345")
    part.commit("state", b"{}")
    assert folder.names("*/*") == ["a/shard", "a/state"]
    assert part.size("shard") == 5 and part.size("none") is None
    assert part.read("state") == b"{}"
    assert part.fetch("shard").read_bytes() == b"12345"
    folder.forget_all()
    assert part.fetch("shard").read_bytes() == b"12345", "fetched again"
    part.remove("state")
    part.remove("state")  # gone already
    assert folder.names("*/state") == []
    part.remove()
    assert folder.names("*/*") == []
    (folder / "never").remove()


def test_a_write_that_fails_leaves_no_copy(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder.writing("shard") as path:
        path.write_bytes(b"1")
        raise RuntimeError
    assert folder.local is not None or folder.names("*") == []
    assert not list((tmp_path / "staged").glob("*"))


def test_space_is_known_on_a_file_system_only(folder: Folder) -> None:
    free = folder.free_bytes()
    assert (free is None) == (folder.local is None)
    assert free is None or free > 0


def test_an_unknown_protocol_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"nowhere:// cannot be used"):
        Folder("nowhere://x")
