"""Hashes of files are remembered while the file stays what it is, and never longer."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from stages.text import file_hashes
from tests.opened_files import opened_below


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED_S", 0.0)
    return tmp_path / "cache"


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_stays_is_read_once(tmp_path: Path, cache: Path) -> None:
    paths = [write(tmp_path / "data" / f"{n}.bin", bytes([n]) * 100) for n in range(3)]
    with opened_below(tmp_path / "data") as opened:
        assert file_hashes.file_hashes(paths) == [sha256(bytes([n]) * 100) for n in range(3)]
        assert len(opened) == 3
    with opened_below(tmp_path / "data") as opened:
        assert file_hashes.file_hashes(paths) == [sha256(bytes([n]) * 100) for n in range(3)]
        assert opened == []


def test_whatever_changes_a_file_is_seen(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "data" / "a.bin", b"one")
    assert file_hashes.file_hashes([path]) == [sha256(b"one")]
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if it had not been written
    assert file_hashes.file_hashes([path]) == [sha256(b"two")]
    os.replace(write(tmp_path / "data" / "b.bin", b"six"), path)
    assert file_hashes.file_hashes([path]) == [sha256(b"six")]


def test_a_file_just_written_is_not_trusted_yet(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_S", 3600.0)
    path = write(tmp_path / "data" / "a.bin", b"one")
    for _ in range(2):
        with opened_below(tmp_path / "data") as opened:
            assert file_hashes.file_hashes([path]) == [sha256(b"one")]
            assert len(opened) == 1


def test_without_a_cache_files_are_hashed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "cache", b"a file stands where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED_S", 0.0)
    path = write(tmp_path / "data" / "a.bin", b"one")
    assert file_hashes.file_hashes([path, path]) == [sha256(b"one")] * 2
    torn = tmp_path / "torn" / "raylm"
    torn.mkdir(parents=True)
    (torn / "file-hashes.sqlite").write_bytes(b"not a database" * 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "torn"))
    assert file_hashes.file_hashes([path]) == [sha256(b"one")]
