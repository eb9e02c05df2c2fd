"""Lists that refuse a page by its address or by its words.

Addresses: domains (their subdomains too), single URLs, and words in the URL, from files with one
entry a line (# begins a comment, .gz is read), or `datatrove`: the lists that FineWeb used, which
come with the datatrove package (UT1's, Université Toulouse Capitole, CC BY-SA). They are kept as
sorted 64-bit hashes: 8 bytes an entry, whatever their number.

Words: a list refuses a page that says its words more often than it allows. As C4 does, a word must
stand alone in languages with spaces, and may stand anywhere in others.
"""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import xxhash

from cluster.errors import UserError

DATATROVE = "datatrove"
BUNDLED = ("adult", "gambling")
_URL_WORD = re.compile(r"[^a-z0-9]+")
_SOFT_WORDS = 2  # so many of the doubtful words in one URL, as in datatrove
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "km", "lo", "my"})
_CHARACTERS_PER_WORD = 1.6


def check_list(path: str) -> None:
    """A UserError where there is no such file."""
    if not Path(path).is_file():
        raise UserError(
            f"no list at {path}: expected a text file with one entry a line, or one of the names"
            f" {DATATROVE}, {', '.join(BUNDLED)}"
        )


def _lines(path: str) -> Iterator[str]:
    check_list(path)
    file = Path(path)
    read = gzip.open if file.suffix == ".gz" else open
    with read(file, "rt", encoding="utf-8", errors="replace") as lines:
        yield from (entry for line in lines if (entry := line.split("#")[0].strip()))


def _datatrove_asset(name: str) -> Iterator[str]:
    from datatrove.utils._import_utils import ASSETS_PATH

    folder = Path(ASSETS_PATH)
    if name.endswith(".txt"):
        yield from _lines(str(folder / name))
        return
    with tarfile.open(folder / "url_filterblacklistsv0_3_0.tar.gz") as archive:
        file = archive.extractfile(name)
        for line in file or ():
            yield line.decode("utf-8", "replace").strip()


class HashSet:
    """A set of strings as sorted hashes: it may answer yes for one it does not hold, once in
    2^64 / size.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        hashes = (xxhash.xxh3_64_intdigest(entry.lower()) for entry in entries)
        self._hashes = np.unique(np.fromiter(hashes, dtype=np.uint64))

    def __contains__(self, entry: str) -> bool:
        wanted = np.uint64(xxhash.xxh3_64_intdigest(entry))
        at = int(np.searchsorted(self._hashes, wanted))
        return at < self._hashes.size and bool(self._hashes[at] == wanted)

    def __len__(self) -> int:
        return int(self._hashes.size)


def host_of(url: str) -> str:
    """The host in lower case without `www.`; "" where the URL has none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # an unclosed bracket
        return ""
    return host.rstrip(".").removeprefix("www.")


def _bare(url: str) -> str:
    """The URL as lists write it: no scheme, no `www.`, no fragment, no slash at its end."""
    rest = re.sub(r"^[a-z][a-z0-9+.-]*://", "", url.strip().lower()).removeprefix("www.")
    return rest.split("#")[0].rstrip("/")


class UrlBlocklist:
    """Refuses pages by where they are."""

    def __init__(
        self, domains: Sequence[str] = (), urls: Sequence[str] = (), words: Sequence[str] = ()
    ) -> None:
        self._domains = HashSet(
            entry.removeprefix("www.")
            for name in domains
            for entry in self._entries(name, "domains")
        )
        self._urls = HashSet(_bare(entry) for name in urls for entry in self._entries(name, "urls"))
        self._words = frozenset(
            entry.lower() for name in words for entry in self._entries(name, "banned_words.txt")
        )
        stock = DATATROVE in words
        self._soft = frozenset(_datatrove_asset("soft_banned_words.txt")) if stock else frozenset()
        parts = sorted(_datatrove_asset("banned_subwords.txt")) if stock else []
        self._parts = re.compile("|".join(map(re.escape, parts))) if parts else None

    @staticmethod
    def _entries(name: str, asset: str) -> Iterator[str]:
        return _datatrove_asset(asset) if name == DATATROVE else _lines(name)

    def refuses(self, url: str) -> str:
        """Why: "domain", "url", "word"; "" if it does not."""
        if len(self._domains):
            labels = host_of(url).split(".")
            if any(".".join(labels[at:]) in self._domains for at in range(max(1, len(labels) - 1))):
                return "domain"
        if len(self._urls) and _bare(url) in self._urls:
            return "url"
        if self._words or self._parts:
            words = set(_URL_WORD.split(url.lower()))
            if not words.isdisjoint(self._words) or len(words & self._soft) >= _SOFT_WORDS:
                return "word"
            if self._parts and self._parts.search(_URL_WORD.sub("", url.lower())):
                return "word"
        return ""


@dataclass(frozen=True)
class WordListSource:
    """One list: a file's path or a bundled name, for which language, and what it allows."""

    name: str
    language: str
    per_thousand: float = 0.0


class WordLists:
    """Refuses pages that say too many of a list's words."""

    def __init__(self, sources: Sequence[WordListSource]) -> None:
        self._lists: dict[str, list[tuple[WordListSource, re.Pattern[str]]]] = {}
        for source in sources:
            pattern = _word_pattern(_word_entries(source), source.language)
            self._lists.setdefault(source.language, []).append((source, pattern))

    def refuses(self, text: str, language: str) -> str:
        """The name of the first list that the page says too much of; "" if none."""
        lists = self._lists.get(language)
        if not lists:
            return ""
        lower = text.lower()
        size = (
            len(text) / _CHARACTERS_PER_WORD if language in _WITHOUT_SPACES else len(text.split())
        )
        for source, pattern in lists:
            if source.per_thousand == 0:
                too_many = pattern.search(lower) is not None
            else:
                said = sum(1 for _ in pattern.finditer(lower))
                too_many = said > source.per_thousand * size / 1000
            if too_many:
                return Path(source.name).name
        return ""


def _word_entries(source: WordListSource) -> list[str]:
    if source.name in BUNDLED:
        file = resources.files("stages.text.lists") / f"{source.name}.{source.language}.txt"
        if not file.is_file():
            raise UserError(
                f"the word list {source.name} has no {source.language} words: give a file's path"
            )
        return file.read_text(encoding="utf-8").split("\n")
    return list(_lines(source.name))


def _word_pattern(entries: Iterable[str], language: str) -> re.Pattern[str]:
    words = sorted({entry.strip().lower() for entry in entries} - {""}, key=lambda w: (-len(w), w))
    either = "|".join(map(re.escape, words)) or r"(?!)"
    return re.compile(either if language in _WITHOUT_SPACES else rf"(?<!\w)(?:{either})(?!\w)")
