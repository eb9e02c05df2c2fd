"""Artifacts: whole or not there, and honest about their files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.artifact import content_id, publish, read_artifact, verify
from cluster.errors import UserError

FIELDS: dict[str, Any] = {
    "id": "examples-000000000001", "kind": "examples", "stage": "write", "stage_version": 1,
    "code_version": "0", "config": {}, "parents": {}, "seed": 1, "trajectory": "t",
    "metrics": {}, "seconds": 1.0, "cost": 0.0, "energy_kwh": 0.0,
}  # fmt: skip


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_publish_moves_a_folder_whole_and_lists_every_file(tmp_path: Path) -> None:
    out = folder_with(tmp_path / "out", a="one", b="")
    (out / "deep").mkdir()
    (out / "deep" / "c.bin").write_bytes(b"\x00" * 5000)
    artifact = publish(out, tmp_path / "store", **FIELDS)
    assert not out.exists()
    assert artifact.path == tmp_path / "store" / "artifacts" / FIELDS["id"]
    listed = {entry.path: (entry.size, entry.sha256) for entry in artifact.manifest.files}
    assert listed == {
        "a": (3, hashlib.sha256(b"one").hexdigest()),
        "b": (0, hashlib.sha256(b"").hexdigest()),
        "deep/c.bin": (5000, hashlib.sha256(bytes(5000)).hexdigest()),
    }
    assert read_artifact(artifact.path) == artifact
    assert verify(artifact) == []


def test_publishing_the_same_again_keeps_the_first(tmp_path: Path) -> None:
    first = publish(folder_with(tmp_path / "1", a="one"), tmp_path, **FIELDS)
    second = publish(folder_with(tmp_path / "2", a="one"), tmp_path, **FIELDS)
    assert second == first
    assert not (tmp_path / "2").exists()


def test_verify_tells_every_kind_of_damage(tmp_path: Path) -> None:
    artifact = publish(
        folder_with(tmp_path / "o", a="1", b="2", c="3"), tmp_path / "store", **FIELDS
    )
    (artifact.path / "a").write_text("x")
    (artifact.path / "b").write_text("longer")
    (artifact.path / "c").unlink()
    (artifact.path / "d").write_text("new")
    faults = verify(artifact)
    assert [fault.split()[0] for fault in faults] == ["a", "b", "c", "d"]
    assert "sha256" in faults[0] and "expected 1" in faults[1] and "missing" in faults[2]


def test_what_is_no_artifact_is_a_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest"):
        read_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is not a manifest"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path, path: str) -> None:
    artifact = publish(folder_with(tmp_path / "o", a="1"), tmp_path / "store", **FIELDS)
    text = json.loads((artifact.path / "manifest.json").read_text())
    text["files"][0]["path"] = path
    (artifact.path / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="leads out of"):
        read_artifact(artifact.path)


def test_a_missing_file_names_what_there_is(tmp_path: Path) -> None:
    artifact = publish(folder_with(tmp_path / "o", a="1"), tmp_path / "store", **FIELDS)
    with pytest.raises(UserError, match="has no 'b'; it holds a"):
        artifact.file("b")


def test_content_id_is_canonical() -> None:
    assert content_id("tokens", {"a": 1, "b": [2]}) == content_id("tokens", {"b": [2], "a": 1})
    assert content_id("tokens", {"a": 1}) != content_id("tokens", {"a": 2})
    digest = hashlib.sha256('{"a":"é"}'.encode()).hexdigest()[:12]
    assert content_id("tokens", {"a": "é"}) == f"tokens-{digest}"
