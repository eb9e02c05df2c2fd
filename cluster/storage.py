"""Stores: where artifacts, the names given to them, and work in progress lie.

A store is a folder, or a prefix on an object store (`s3://bucket/prefix`, `gs://...`) with a local
cache. Both have one layout:

    artifacts/<id>/...            immutable, complete as soon as visible
    <recipe>/index.json           the recipe's names -> artifact ids
    work/<stage>-<trajectory>/    scratch that survives kills, and folders being written

On an object store files go up first and the manifest last, so an artifact without one does not
exist; work in progress lies in the local cache, and what must outlive this machine (checkpoints of
a training) under the store's own `work/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from cluster.artifact import (
    ARTIFACTS,
    MANIFEST,
    Artifact,
    Manifest,
    parse_manifest,
    publish,
    read_artifact,
    seal,
    verify,
    write_atomically,
)
from cluster.errors import UserError
from cluster.lease import file_lease, heartbeat_lease
from cluster.remote import filesystem, reaching

INDEX = "index.json"
IMPORTS = "imports"
RESERVED = (ARTIFACTS, "work", IMPORTS)


class Store(Protocol):
    """What the pipeline asks of a store, local or remote."""

    url: str
    work: Path
    """Local folder for scratch and folders being written; on a local store's file system."""

    def lease(self, what: str) -> AbstractContextManager[None]:
        """The right to write, held by one process at a time."""

    def has(self, artifact_id: str) -> bool:
        """Whether the artifact is there, complete."""

    def manifest(self, artifact_id: str) -> Manifest:
        """Its manifest, without fetching its files."""

    def get(self, artifact_id: str) -> Artifact:
        """The artifact with its files on this machine."""

    def put(self, folder: Path, fields: dict[str, Any]) -> Artifact:
        """Publish a finished folder (it is consumed) with these manifest fields."""

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact; it stops being visible before its files go."""

    def ids(self) -> list[str]:
        """Every complete artifact, sorted."""

    def durable(self, work_name: str) -> str:
        """Where work in progress outlives this machine: a URL, or nothing where `work` does."""

    def runs(self) -> list[str]:
        """Every name that has an index."""

    def local(self, run: str) -> Path:
        """A run's folder on this machine, for logs."""

    def read(self, name: str) -> bytes | None:
        """A small file of the store, None if it is not there."""

    def write(self, name: str, data: bytes) -> str:
        """Replace a small file in one step; where it lies."""


class LocalStore:
    """A store in a folder (of this machine or a shared file system)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)
        self.work = folder / "work"

    def lease(self, what: str) -> AbstractContextManager[None]:
        return file_lease(self.folder, what)

    def has(self, artifact_id: str) -> bool:
        return is_id(artifact_id) and (self.folder / ARTIFACTS / artifact_id / MANIFEST).is_file()

    def manifest(self, artifact_id: str) -> Manifest:
        return self.get(artifact_id).manifest

    def get(self, artifact_id: str) -> Artifact:
        if not self.has(artifact_id):
            raise unknown(artifact_id, self)
        return read_artifact(self.folder / ARTIFACTS / artifact_id)

    def put(self, folder: Path, fields: dict[str, Any]) -> Artifact:
        return publish(folder, self.folder, **fields)

    def remove(self, artifact_id: str) -> None:
        # renamed away first, so that a kill half-way leaves no half artifact visible
        doomed = self.work / f"removed-{artifact_id}"
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(self.folder / ARTIFACTS / artifact_id, doomed)
        shutil.rmtree(doomed)

    def ids(self) -> list[str]:
        return sorted(path.parent.name for path in (self.folder / ARTIFACTS).glob(f"*/{MANIFEST}"))

    def durable(self, work_name: str) -> str:
        return ""

    def runs(self) -> list[str]:
        return sorted(path.parent.name for path in self.folder.glob(f"*/{INDEX}"))

    def local(self, run: str) -> Path:
        return self.folder / run

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, data: bytes) -> str:
        write_atomically(self.folder / name, data)
        return str(self.folder / name)


class ObjectStore:
    """A store on an object store, through fsspec, with a local cache of what was fetched."""

    def __init__(self, url: str, cache: Path, **options: Any) -> None:
        self.fs, root = filesystem(url, options)
        self.root = root.rstrip("/")
        self.url = url.rstrip("/")
        self.cache = cache / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.work = self.cache / "work"

    def lease(self, what: str) -> AbstractContextManager[None]:
        return heartbeat_lease(self.fs, f"{self.root}/.lease", what)

    def has(self, artifact_id: str) -> bool:
        return is_id(artifact_id) and (
            (self.cache / ARTIFACTS / artifact_id / MANIFEST).is_file()
            or self._exists(artifact_id, MANIFEST)
        )

    def manifest(self, artifact_id: str) -> Manifest:
        place = self._at(artifact_id, MANIFEST)
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            return parse_manifest(self.fs.cat_file(place), place)
        raise unknown(artifact_id, self)

    def get(self, artifact_id: str) -> Artifact:
        local = self.cache / ARTIFACTS / artifact_id
        if (local / MANIFEST).is_file():
            return read_artifact(local)
        manifest = self.manifest(artifact_id)
        arriving = self.work / f"fetched-{artifact_id}"
        shutil.rmtree(arriving, ignore_errors=True)
        for entry in manifest.files:
            (arriving / entry.path).parent.mkdir(parents=True, exist_ok=True)
            with reaching(self.url):
                self.fs.get_file(self._at(artifact_id, entry.path), str(arriving / entry.path))
        arriving.mkdir(parents=True, exist_ok=True)
        faults = verify(Artifact(arriving, manifest))
        if faults:
            raise UserError(
                f"artifact {artifact_id} came damaged from {self.url}: {faults[0]}; "
                "try again, or remove it there and run its stage again"
            )
        (arriving / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
        local.parent.mkdir(parents=True, exist_ok=True)
        os.rename(arriving, local)
        return Artifact(local, manifest)

    def put(self, folder: Path, fields: dict[str, Any]) -> Artifact:
        manifest = seal(folder, fields)
        if not self._exists(manifest.id, MANIFEST):
            with reaching(self.url, writing=True):
                for entry in manifest.files:
                    self.fs.put_file(str(folder / entry.path), self._at(manifest.id, entry.path))
                self.fs.put_file(str(folder / MANIFEST), self._at(manifest.id, MANIFEST))
        local = self.cache / ARTIFACTS / manifest.id
        if (local / MANIFEST).is_file():
            shutil.rmtree(folder)
            return read_artifact(local)
        local.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, local)
        return Artifact(local, manifest)

    def remove(self, artifact_id: str) -> None:
        with reaching(self.url):
            self.fs.rm_file(self._at(artifact_id, MANIFEST))
            if self.fs.exists(self._at(artifact_id)):
                self.fs.rm(self._at(artifact_id), recursive=True)
        shutil.rmtree(self.cache / ARTIFACTS / artifact_id, ignore_errors=True)

    def ids(self) -> list[str]:
        return sorted(path.split("/")[-2] for path in self._glob(f"{ARTIFACTS}/*/{MANIFEST}"))

    def durable(self, work_name: str) -> str:
        return f"{self.url}/work/{work_name}"

    def runs(self) -> list[str]:
        return sorted(path.split("/")[-2] for path in self._glob(f"*/{INDEX}"))

    def local(self, run: str) -> Path:
        return self.cache / run

    def read(self, name: str) -> bytes | None:
        self.fs.invalidate_cache()
        with reaching(self.url), contextlib.suppress(FileNotFoundError):
            return bytes(self.fs.cat_file(f"{self.root}/{name}"))
        return None

    def write(self, name: str, data: bytes) -> str:
        with reaching(self.url, writing=True):
            self.fs.pipe_file(f"{self.root}/{name}", data)
        return f"{self.url}/{name}"

    def _at(self, artifact_id: str, name: str = "") -> str:
        return f"{self.root}/{ARTIFACTS}/{artifact_id}/{name}".rstrip("/")

    def _exists(self, artifact_id: str, name: str) -> bool:
        with reaching(self.url):
            return bool(self.fs.exists(self._at(artifact_id, name)))

    def _glob(self, pattern: str) -> list[str]:
        with reaching(self.url):
            self.fs.invalidate_cache()
            return [str(path) for path in self.fs.glob(f"{self.root}/{pattern}")]


def is_id(name: str) -> bool:
    """Whether a name may be an artifact's id: one folder's name, and no way out of the store."""
    return re.fullmatch(r"[\w-]{1,200}", name) is not None


def unknown(artifact_id: str, store: Store) -> UserError:
    known = store.ids()
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") or "nothing yet"
    return UserError(f"there is no artifact {artifact_id!r} in {store.url}; it holds {listed}")


def open_store(url: str, cache: Path | None = None) -> Store:
    """The store at a folder or URL; `cache` is where a remote one keeps what it fetched."""
    if not url:
        raise UserError("found an empty store, expected a folder, s3://... or gs://...")
    if "://" not in url or url.startswith("file://"):
        try:
            return LocalStore(Path(url.removeprefix("file://")).expanduser().absolute())
        except RuntimeError as error:  # ~name of a user that there is not
            raise UserError(f"store {url}: {error}; give a folder, s3://... or gs://...") from error
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return ObjectStore(url, cache or home / "raylm")
