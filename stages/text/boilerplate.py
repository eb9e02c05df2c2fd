"""Lines that a host repeats on its pages: menus, notices, calls to subscribe.

A line counts once a page. One that stands on enough pages of a host is its boilerplate and is left
out of all of them; what is left of a page is judged by the filters afterwards. Lines are compared
without case, digits and outer space, so that "Page 3 of 12" is the line "Page 7 of 12". A line is
known by a 64-bit hash of it with its host.
"""

from __future__ import annotations

import re

import numpy as np
import xxhash

from stages.text.blocklists import host_of

_DIGITS = re.compile(r"\d+")
_LEAST_CHARACTERS = 2


def line_keys(url: str, text: str) -> list[int]:
    """One key a line of the text; 0 for a line that says nothing."""
    host = host_of(url)
    keys = []
    for line in text.split("\n"):
        plain = _DIGITS.sub("0", line.strip().lower())
        says = len(plain) >= _LEAST_CHARACTERS
        said = f"{host}\n{plain}".encode("utf-8", "replace")
        keys.append(xxhash.xxh3_64_intdigest(said) if says else 0)
    return keys


def contains(keys: np.ndarray, key: int) -> bool:
    """Whether the sorted array holds the key."""
    wanted = np.uint64(key)
    at = int(np.searchsorted(keys, wanted))
    return at < keys.size and bool(keys[at] == wanted)


def without(url: str, text: str, repeated: np.ndarray) -> str:
    """The text without its host's repeated lines (sorted keys), and without the blank runs that
    they leave.
    """
    keyed = zip(text.split("\n"), line_keys(url, text), strict=True)
    kept = [line for line, key in keyed if key == 0 or not contains(repeated, key)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
