"""From the config to units of reading, and what stands for outside files in an artifact's id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.corpus import Profile, Source
from stages.text.prose import installed, package_versions, packages_named
from stages.text.readers import Unit, find_units

_WHOLE_FILE_BYTES = 64 << 20
_PACKAGE_BYTES = 1 << 18  # a guess at one package's prose, where no limit says it
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class Job:
    """A unit and how its documents are judged. `number` is its place in crawl order."""

    number: int
    unit: Unit
    profile: Profile

    @property
    def folder(self) -> str:
        """The name of the folder that its commit makes."""
        return f"{self.number:06d}-{hashlib.sha256(self.unit.key.encode()).hexdigest()[:12]}"

    def weight(self) -> int:
        """About how many bytes there are to read: to share out work and to tell progress."""
        size = sum(Path(path).stat().st_size for path in self.unit.paths) or _PACKAGE_BYTES
        return min(size, self.unit.max_bytes or size)


def find_jobs(crawls: Sequence[Artifact], sources: Sequence[Source]) -> list[Job]:
    """Every unit of every crawl and source, in the order that decides which duplicate survives."""
    found: list[tuple[Unit, Profile]] = []
    for number, crawl in enumerate(crawls):
        found += [(unit, "web") for unit in find_units(crawl.path, f"crawl{number}", "archive")]
    for source in sources:
        found += [(unit, source.profile) for unit in _units(source)]
    keys = [unit.key for unit, _ in found]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"two sources hold {twice!r}: give one of them another `name`")
    return [Job(number, unit, profile) for number, (unit, profile) in enumerate(found)]


def _units(source: Source) -> list[Unit]:
    if source.path is not None:
        path = Path(source.path)
        key = source.name or (path.name if path.is_dir() else "file")
        return find_units(path, key, source.format, source.language, source.max_bytes)
    packages = packages_named(source.installed_packages or (), installed())
    share = source.max_bytes // len(packages) if source.max_bytes else None
    key = source.name or "packages"
    return [
        Unit(f"{key}/{package.name}", "packages", (), (package.name,), source.language, share)
        for package in packages
    ]


def fingerprint_sources(sources: Sequence[Source]) -> list[Any]:
    """For each source its files' names, sizes and hashes, or its packages' versions."""
    prints: list[Any] = []
    for source in sources:
        if source.installed_packages is not None:
            prints.append(package_versions(source.installed_packages))
        else:
            prints.append(
                [
                    [name, Path(path).stat().st_size, file_hash(Path(path))]
                    for unit in _units(source)
                    for path, name in zip(unit.paths, unit.names, strict=True)
                ]
            )
    return prints


def file_hash(path: Path) -> str:
    """sha256 of the file; of 64 evenly spaced mebibytes where it is larger than that."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
