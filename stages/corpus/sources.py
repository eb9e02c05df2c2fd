"""From the config to units of reading, and what stands for outside files in an artifact's id."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.artifact import Artifact
from cluster.errors import UserError
from stages.corpus.source import Extractor, Profile, Source
from stages.text.common_crawl import dump_files
from stages.text.files import FileInfo, find_files, fingerprint, is_remote
from stages.text.prose import installed, package_versions, packages_named
from stages.text.units import Unit, format_of, make_units

_PACKAGE_BYTES = 1 << 18  # a guess at one package's prose, where no limit says it
_UNKNOWN_BYTES = 256 << 20  # a file of a dump, whose listing gives no sizes


@dataclass(frozen=True)
class Job:
    """A unit and how its documents are judged. `number` is its place in crawl order."""

    number: int
    unit: Unit
    profile: Profile
    extractor: Extractor | None = None

    @property
    def folder(self) -> str:
        """The name of the folder that its commit makes."""
        return f"{self.number:06d}-{hashlib.sha256(self.unit.key.encode()).hexdigest()[:12]}"

    def weight(self) -> int:
        """About how many bytes there are to read: to share out work and to tell progress."""
        unknown = _PACKAGE_BYTES if self.unit.format == "packages" else _UNKNOWN_BYTES
        size = sum(file.size for file in self.unit.files) or unknown
        return min(size, self.unit.max_bytes or size)


def find_jobs(crawls: Sequence[Artifact], sources: Sequence[Source]) -> list[Job]:
    """Every unit of every crawl and source, in the order that decides which duplicate survives."""
    found: list[tuple[Unit, Profile, Extractor | None]] = []
    for number, crawl in enumerate(crawls):
        files = find_files(str(crawl.path))
        units = make_units(files, f"crawl{number}", "archive", str(crawl.path))
        found += [(unit, "web", None) for unit in units]
    for source in sources:
        found += [(unit, source.profile, source.extractor) for unit in _units(source)]
    counts = Counter(unit.key for unit, *_ in found)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"two sources hold {twice[0]!r}: give one of them another `name`")
    return [Job(number, *job) for number, job in enumerate(found)]


def source_files(source: Source) -> list[FileInfo]:
    """The files of a source that is not packages, those that `files` chooses."""
    if source.common_crawl is not None:
        files = dump_files(source.common_crawl, source.kind, source.base, source.options)
    elif source.dataset is not None:
        from stages.text.hub import dataset_files

        files = dataset_files(source.dataset, source.subset, source.split, source.revision)
    else:
        files = find_files(source.path or "", source.options)
    return files[source.chosen]


def _key(source: Source) -> str:
    """What the source's units are called: of a folder its name, wherever it lies."""
    if source.name or source.common_crawl:
        return source.name or source.common_crawl or ""
    name = (source.dataset or source.path or "").rstrip("/").rpartition("/")[2]
    folder = source.dataset or is_remote(source.path or "") or Path(source.path or "").is_dir()
    return name if folder and "*" not in name and format_of(name) is None else "file"


def _units(source: Source) -> list[Unit]:
    if source.installed_packages is not None:
        return _package_units(source)
    return make_units(
        source_files(source),
        _key(source),
        "archive" if source.common_crawl else source.format,
        source.path or source.dataset or source.common_crawl or "",
        dataset=source.dataset is not None,
        language=source.language,
        max_bytes=source.max_bytes,
        options=source.options,
        text_key=source.text_key,
    )


def _package_units(source: Source) -> list[Unit]:
    packages = packages_named(source.installed_packages or (), installed())
    share = source.max_bytes // len(packages) if source.max_bytes else None
    key = source.name or "packages"
    return [
        Unit(f"{key}/{package.name}", "packages", (), (package.name,), source.language, share)
        for package in packages
    ]


def fingerprint_sources(sources: Sequence[Source]) -> list[Any]:
    """For each source its files' names, sizes and hashes or marks, or its packages' versions.

    A dump's files never change: their names are enough.
    """
    prints: list[Any] = []
    for source in sources:
        if source.installed_packages is not None:
            prints.append(package_versions(source.installed_packages))
        elif source.common_crawl is not None:
            names = "\n".join(file.name for file in source_files(source))
            prints.append(hashlib.sha256(names.encode()).hexdigest())
        else:
            prints.append(fingerprint([file for unit in _units(source) for file in unit.files]))
    return prints
