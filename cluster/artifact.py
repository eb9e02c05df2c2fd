"""Immutable artifacts: a folder of files and a `manifest.json`, published in one step.

An artifact's id hashes what decides its content, so the same work is found again, by anyone, in any
run. A half-written artifact is never visible: files are written beside, hashed, and renamed into
place; the manifest is the proof of completeness.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cluster.errors import UserError

MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"


class FileEntry(BaseModel):
    """One file of an artifact: path relative to the folder, size in bytes, sha256 in hex."""

    model_config = ConfigDict(frozen=True)
    path: str
    size: int
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        """A manifest may come from a foreign store: its paths must not lead out of the folder."""
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or path.startswith("/"):
            raise ValueError(f"{path!r} leads out of the artifact's folder")
        return path


class Manifest(BaseModel):
    """Everything known about an artifact: what made it, from what, at what cost, and its files."""

    model_config = ConfigDict(frozen=True)
    id: str
    kind: str
    stage: str
    stage_version: int
    code_version: str
    config: dict[str, Any]
    parents: dict[str, list[str]]
    fingerprint: Any = None
    seed: int
    trajectory: str
    metrics: dict[str, Any]
    seconds: float
    cpu_seconds: float = 0.0
    peak_pss_bytes: int = 0
    cost: float
    currency: str = "USD"
    energy_kwh: float
    energy_source: str = "estimate"
    created: str
    files: list[FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all files together, the manifest left out."""
        return sum(entry.size for entry in self.files)


@dataclass(frozen=True)
class Artifact:
    """A published artifact with its files on this machine (or a shared file system)."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest.metrics

    def file(self, name: str) -> Path:
        """The path of one of its files; a missing one is a UserError that names what there is."""
        path = self.path / name
        if not path.exists():
            there = ", ".join(entry.path for entry in self.manifest.files[:12])
            raise UserError(f"artifact {self.id} has no {name!r}; it holds {there}")
        return path


def canonical_hash(identity: Mapping[str, Any]) -> str:
    """12 hex digits of the sha256 of the canonical JSON (sorted keys, no spaces) of `identity`."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def content_id(kind: str, identity: Mapping[str, Any]) -> str:
    """`kind-` and 12 hex digits of the sha256 of the canonical JSON of `identity`."""
    return f"{kind}-{canonical_hash(identity)}"


def timestamp() -> str:
    """Now, in UTC, as ISO 8601 to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file in one step: written beside, flushed to the disk, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)


def files_of(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in sorted order, the manifest left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            yield path


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(folder: Path, fields: Mapping[str, Any]) -> Manifest:
    """Hash every file of a finished folder, flush them to the disk and write the manifest last.

    `fields` are the manifest's fields except `files` (and `created`, filled in if missing).
    """
    entries = []
    for path in files_of(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        entries.append(
            FileEntry(
                path=path.relative_to(folder).as_posix(),
                size=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )
    manifest = Manifest(**{"created": timestamp(), **fields, "files": entries})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomically(folder / MANIFEST, text.encode())
    _flush_folder(folder)
    return manifest


def publish(folder: Path, store: Path, **fields: Any) -> Artifact:
    """Seal a folder and rename it to `store/artifacts/<id>`: visible whole, or not at all.

    When the same artifact is already there, the new copy is dropped: equal ids mean equal content.
    """
    manifest = seal(folder, fields)
    target = store / ARTIFACTS / manifest.id
    target.parent.mkdir(parents=True, exist_ok=True)
    if (target / MANIFEST).exists():
        shutil.rmtree(folder)
        return read_artifact(target)
    os.rename(folder, target)
    _flush_folder(target.parent)
    return Artifact(target, manifest)


def parse_manifest(text: str | bytes, origin: str) -> Manifest:
    """A manifest from its JSON; a damaged one is a UserError naming where it lies."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{origin} is not a manifest ({error.errors()[0]['msg']}); "
            "remove that artifact's folder, and the next run makes it again"
        ) from error


def read_artifact(path: Path) -> Artifact:
    """The artifact in a folder; one without a readable manifest is a UserError."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{path} is not an artifact: it has no {MANIFEST}")
    return Artifact(path, parse_manifest(manifest.read_bytes(), str(manifest)))


def whole(artifact: Artifact) -> Artifact:
    """The artifact, a UserError if a file of it is gone or has another size than it was made with.

    Cheap, so that it can be asked before every use; `verify` reads the files too.
    """
    for entry in artifact.manifest.files:
        path = artifact.path / entry.path
        found = path.stat().st_size if path.is_file() else None
        if found != entry.size:
            raise UserError(
                f"artifact {artifact.id} is damaged: {entry.path} "
                f"{'is missing' if found is None else f'has {found} bytes'}, expected {entry.size} "
                f"bytes; remove {artifact.path}, and the next run makes it again"
            )
    return artifact


def verify(artifact: Artifact) -> list[str]:
    """What differs between an artifact's files and its manifest; empty if it is whole."""
    faults = []
    listed = {entry.path for entry in artifact.manifest.files}
    for entry in artifact.manifest.files:
        path = artifact.path / entry.path
        if not path.is_file():
            faults.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.size:
            faults.append(f"{entry.path} has {path.stat().st_size} bytes, expected {entry.size}")
        elif file_sha256(path) != entry.sha256:
            faults.append(f"{entry.path} has another sha256 than the manifest")
    for path in files_of(artifact.path):
        if path.relative_to(artifact.path).as_posix() not in listed:
            faults.append(f"{path.relative_to(artifact.path)} is not in the manifest")
    return faults


def _flush_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
