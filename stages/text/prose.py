"""Real prose that every installation has: the documentation and docstrings of installed packages.

README texts come from each distribution's metadata, documentation from its .md, .rst and .txt
files, and docstrings from its modules by parsing, never importing, them. The order is fixed:
packages by name, files by path.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_string
from email.parser import HeaderParser
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from cluster.errors import UserError
from stages.text.records import Page

_DOCUMENTATION = (".md", ".rst")
_MAX_MODULE_BYTES = 1 << 20
_MIN_DOCSTRING_CHARS = 80
_SKIPPED_PARTS = re.compile(
    r"(^|/)(tests?|testing|_vendor|vendored?|licen[sc]es?|locale)(/|$)|test_", re.I
)


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution with the name and version that its metadata give."""

    name: str
    version: str
    distribution: metadata.Distribution


def installed() -> dict[str, Package]:
    """Every installed distribution by its name in lower case; read anew at each call."""
    found = {}
    for distribution in metadata.distributions():
        # Only the head is parsed: the description behind it is most of the file.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        head = HeaderParser().parsestr(text.partition("\n\n")[0])
        if head["Name"]:
            package = Package(head["Name"], head["Version"] or "", distribution)
            found[package.name.lower()] = package
    return found


@lru_cache(maxsize=1)
def _installed_once() -> dict[str, Package]:
    """For a worker that reads hundreds of packages, each a unit of its own."""
    return installed()


def packages_named(names: Sequence[str], found: Mapping[str, Package]) -> list[Package]:
    """The packages of these names, sorted; ("all",) means every one."""
    if tuple(names) == ("all",):
        return [found[name] for name in sorted(found)]
    missing = [name for name in names if name.lower() not in found]
    if missing:
        raise UserError(
            f"installed_packages names {', '.join(missing)}, which this environment does not have:"
            " install them, or name others (`pip list` shows them; 'all' takes every one)"
        )
    return [found[name.lower()] for name in sorted(set(names), key=str.lower)]


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Name -> version of the distributions read: what stands for this source in an
    artifact's id.
    """
    return {package.name: package.version for package in packages_named(names, installed())}


def read_packages(names: Sequence[str]) -> Iterator[Page]:
    """The packages' prose as plain-text pages, one per README, documentation file or module."""
    for package in packages_named(names, _installed_once()):
        for number, (place, text) in enumerate(_texts(package.distribution)):
            body = text.encode("utf-8", "replace")
            if body:
                url = f"package:{package.name}@{package.version}/{place}"
                yield Page(url, body, number, "text/plain", "utf-8", text)


def _texts(distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    fields = message_from_string(distribution.read_text("METADATA") or "")
    description = fields.get_payload()
    if isinstance(description, str) and description.strip():
        yield "METADATA", description
    for file in sorted(distribution.files or (), key=str):
        place = file.as_posix()
        if _SKIPPED_PARTS.search(place) or ".dist-info/" in place or place.startswith(".."):
            continue
        path = Path(str(file.locate()))
        if place.endswith(_DOCUMENTATION):
            text = _read(path)
        elif place.endswith(".py"):
            text = "\n\n".join(docstrings(_read(path)))
        else:
            continue
        if text.strip():
            yield place, text


def _read(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MAX_MODULE_BYTES:
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and functions, in order; [] if it does not parse."""
    if '"""' not in source and "'''" not in source:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old modules' escape sequences are their own affair
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [text for text in _docstrings_under(tree) if len(text) >= _MIN_DOCSTRING_CHARS]


def _docstrings_under(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[str]:
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings_under(child)
