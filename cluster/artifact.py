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
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.errors import UserError

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of an artifact: path relative to the folder, size in bytes, sha256 in hex."""

    model_config = ConfigDict(frozen=True)
    path: str
    size: int
    sha256: str


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
    cost: float
    energy_kwh: float
    created: str
    files: list[FileEntry]


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


def content_id(kind: str, identity: Mapping[str, Any]) -> str:
    """`kind-` and 12 hex digits of the sha256 of the canonical JSON of `identity`."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"
